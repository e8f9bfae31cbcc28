//! Whole-system tests: programs that drive several rooms together, and the suites with real clients beside them.
#![forbid(unsafe_code)]

pub mod sim;
