//! Java regular expressions over topic names: whole matches, and the comma lists that Kafka's topic filters take. Main thread; knows no broker.

use fancy_regex::Regex;

/// A pattern that a name must match as a whole.
pub struct Whole(Regex);

impl Whole {
    /// Compiles a pattern in Java's syntax. The error is the engine's reason.
    pub fn new(pattern: &str) -> Result<Whole, String> {
        // Compiled alone first: otherwise `a)(b` would pass inside the group.
        Regex::new(pattern).map_err(|e| reason(&e))?;
        Regex::new(&format!("^(?:{pattern})$"))
            .map(Whole)
            .map_err(|e| reason(&e))
    }

    /// A filter as `--topic` of the admin tools takes it: commas mean "or", blanks and outer quotes fall away.
    pub fn filter(pattern: &str) -> Result<Whole, String> {
        let pattern = pattern.trim().replace(',', "|").replace(' ', "");
        let pattern = pattern
            .trim_start_matches(['"', '\''])
            .trim_end_matches(['"', '\'']);
        Whole::new(pattern).map_err(|_| format!("{pattern} is an invalid regex."))
    }

    /// Whether the whole name matches. A pattern that backtracks without end matches nothing.
    pub fn matches(&self, name: &str) -> bool {
        self.0.is_match(name).unwrap_or(false)
    }
}

fn reason(error: &fancy_regex::Error) -> String {
    error.to_string()
}

/// Whether Kafka counts this topic as internal.
pub fn is_internal(topic: &str) -> bool {
    matches!(
        topic,
        "__consumer_offsets" | "__transaction_state" | "__share_group_state"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_a_whole() {
        let pattern = Whole::new("a|bc").unwrap();
        assert!(pattern.matches("a") && pattern.matches("bc"));
        assert!(!pattern.matches("abc") && !pattern.matches("xa"));
        assert!(
            Whole::new("orders-(?!test).*")
                .unwrap()
                .matches("orders-eu")
        );
        assert!(
            !Whole::new("orders-(?!test).*")
                .unwrap()
                .matches("orders-test1")
        );
        assert!(Whole::new("(").is_err());
        assert!(Whole::new("a)(b").is_err());
    }

    #[test]
    fn filters_take_lists() {
        let filter = Whole::filter(" \"a, b.*\" ").unwrap();
        assert!(filter.matches("a") && filter.matches("b7") && !filter.matches("c"));
        assert_eq!(
            Whole::filter("[").err().as_deref(),
            Some("[ is an invalid regex.")
        );
    }
}
