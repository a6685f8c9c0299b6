"""The mount: pyfuse3, trio, signals. Nothing is decided here."""
