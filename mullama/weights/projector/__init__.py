"""The header of a projector (mmproj). Pure: `abilities` reads what it does, `work` the memory that this takes."""
