"""Beside this file are modules that the tests of subfolders import too."""
