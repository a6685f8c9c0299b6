"""The storage contract, and what fulfils it: files by descriptor, and the CURRENT protocol."""
