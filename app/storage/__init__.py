"""Where pictures lie that the gateway keeps: `base` is the contract, `local` a directory, `objects` a bucket."""
