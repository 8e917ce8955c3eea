"""What makes a site of docs/: hooks of MkDocs, see mkdocs.yml, and the table of variables."""
