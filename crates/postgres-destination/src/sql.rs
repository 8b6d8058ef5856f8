//! Names and texts in statements.

/// A name, quoted.
pub(crate) fn name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as a literal, whatever `standard_conforming_strings` says.
pub(crate) fn text(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn nothing_leaves_its_quotes() {
        assert_eq!(super::name(r#"a"; DROP"#), r#""a""; DROP""#);
        assert_eq!(super::text(r"it's \'"), r"E'it''s \\'''");
    }
}
