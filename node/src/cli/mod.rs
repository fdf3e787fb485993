//! The commands of `meshwright`, one file each.
