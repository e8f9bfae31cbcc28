//! Whole-machine tests of the group coordinator.
