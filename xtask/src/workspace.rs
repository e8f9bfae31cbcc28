//! Where things are: the workspace, the build directory, the directory of the installed clients. Touches nothing.

use std::path::{Path, PathBuf};

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies inside the workspace")
        .to_path_buf()
}

/// Cargo's build directory, as the environment or the default has it.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => std::path::absolute(root().join(directory)).expect("an absolute path"),
        None => root().join("target"),
    }
}

/// Where the clients of the interop suite are installed, and where its brokers keep their data.
pub fn interop() -> PathBuf {
    target().join("interop")
}

/// The cargo that runs us.
pub fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_string())
}
