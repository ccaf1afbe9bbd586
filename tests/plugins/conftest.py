"""The files of this folder are plugins, imported by the command only: collect none of them."""

collect_ignore_glob = ["*.py"]
