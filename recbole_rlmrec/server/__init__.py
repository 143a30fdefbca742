"""What may be believed, shown and waited for of a server that is asked for texts or vectors."""
