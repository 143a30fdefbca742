"""A trained model as a web service, with one page to look at; needs the extra ``serve``."""
