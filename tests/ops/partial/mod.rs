//! Incomplete directories: directories from which a rule or a failure kept names are marked in the
//! snapshot, and a restore with `--delete` deletes nothing there.

mod listed;
mod marks;
mod property;
