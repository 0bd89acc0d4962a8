"""What every room stands on and that knows none of them: errors, files, text, devices, the command line."""
