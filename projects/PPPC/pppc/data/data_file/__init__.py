"""The data file: images and labels of one's own as data sets like any other."""

from .registration import DataFile, register_data_file, register_data_file_of

__all__ = ["DataFile", "register_data_file", "register_data_file_of"]
