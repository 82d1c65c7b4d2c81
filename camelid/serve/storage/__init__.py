"""What a server keeps: a database made from a URL, its migrations, and the conversations of the pages."""
