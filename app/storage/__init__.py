"""Where pictures lie that the gateway serves itself: `base` is the contract, `local` a directory."""
