"""Reading of files that anybody may have written: regular files only, bounded work, and one error for a wrong shape."""
