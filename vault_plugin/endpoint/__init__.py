"""The client of KlearStack's endpoint."""
