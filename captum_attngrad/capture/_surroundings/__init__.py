"""Leave everything outside a recording as it is: threads, compiled code, arguments."""
