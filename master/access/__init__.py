"""Who may do what: roles, the tokens that grant them, the file they are kept in, and the page's sessions."""
