"""The papers' experiments, a TOML file each; `sepfast.experiments` reads and checks them."""
