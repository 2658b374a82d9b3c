"""Other tools' documents as profiles and labels: one file per family; `reading` says which family a document is of."""
