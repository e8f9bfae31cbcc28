//! Kafka's names for the tools: which tool a called name means, and the links that bear those names. Runs on the main thread; knows no tool's options.

use std::io::ErrorKind;
use std::path::Path;

use crate::tools::{self, Tool};

/// The tool that a program called by this path is, if its file name is `kafka-TOOL` or `kafka-TOOL.sh`.
pub fn tool_of(called: &str) -> Option<&'static Tool> {
    let name = Path::new(called).file_name()?.to_str()?;
    let name = name.strip_suffix(".sh").unwrap_or(name);
    tools::find(name.strip_prefix("kafka-")?)
}

/// Makes both links of every tool in `directory`, which is created when missing. Links that exist are replaced;
/// a file of such a name that is not a link is left alone and reported. Returns how many links were made.
pub fn install(directory: &Path) -> Result<usize, String> {
    let program =
        std::env::current_exe().map_err(|e| format!("Cannot tell where this program lies: {e}"))?;
    std::fs::create_dir_all(directory)
        .map_err(|e| format!("Cannot create {}: {e}", directory.display()))?;
    let mut made = 0;
    for tool in tools::ALL {
        for name in [
            format!("kafka-{}", tool.name),
            format!("kafka-{}.sh", tool.name),
        ] {
            let link = directory.join(name);
            match std::fs::symlink_metadata(&link) {
                Ok(old) if old.file_type().is_symlink() => {
                    std::fs::remove_file(&link)
                        .map_err(|e| format!("Cannot replace {}: {e}", link.display()))?;
                }
                Ok(_) => {
                    return Err(format!(
                        "{} exists and is not a link: it was left alone",
                        link.display()
                    ));
                }
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(format!("Cannot look at {}: {e}", link.display())),
            }
            std::os::unix::fs::symlink(&program, &link)
                .map_err(|e| format!("Cannot make the link {}: {e}", link.display()))?;
            made += 1;
        }
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_answers_to_both_of_its_kafka_names() {
        for called in [
            "kafka-topics",
            "kafka-topics.sh",
            "/opt/kafka/bin/kafka-topics.sh",
            "./kafka-topics",
        ] {
            assert_eq!(tool_of(called).map(|t| t.name), Some("topics"), "{called}");
        }
        for called in [
            "millrace",
            "topics",
            "kafka-",
            "kafka-topics.bat",
            "kafka-nothing.sh",
        ] {
            assert!(tool_of(called).is_none(), "{called}");
        }
    }

    #[test]
    fn links_are_made_replaced_and_never_overwrite_a_file() {
        let directory = std::env::temp_dir().join(format!("millrace-links-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        assert_eq!(install(&directory), Ok(tools::ALL.len() * 2));
        assert_eq!(install(&directory), Ok(tools::ALL.len() * 2));
        let link = directory.join("kafka-topics.sh");
        assert_eq!(
            std::fs::read_link(&link).unwrap(),
            std::env::current_exe().unwrap()
        );
        std::fs::remove_file(&link).unwrap();
        std::fs::write(&link, "precious").unwrap();
        assert!(install(&directory).unwrap_err().contains("not a link"));
        assert_eq!(std::fs::read_to_string(&link).unwrap(), "precious");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
