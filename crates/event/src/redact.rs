//! Secrets taken out of text that people read: log lines, error messages, answers.
//!
//! A value is found as it is and as it stands in JSON. Encoded by other means (base64, reversed, in parts) it is not
//! found: what a function does with a secret on purpose is the function's doing.

use std::collections::BTreeMap;

/// Shorter values are not looked for: they would be found in everything.
pub const SHORTEST: usize = 6;

/// Fewest bytes of a value that are taken out at the end of text that was cut.
const SHORTEST_PART: usize = 4;

/// What engines put around the piece of a text that they cannot parse.
const QUOTES: [char; 2] = ['"', '\''];

/// The values to take out.
#[derive(Clone, Default)]
pub struct Redactor {
    /// What is looked for and what stands in its place, the longest first.
    forms: Vec<(String, String)>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor")
            .field("forms", &self.forms.len())
            .finish()
    }
}

impl Redactor {
    /// For an environment: a JSON object of strings. What is none has no secrets.
    pub fn new(environment: &str) -> Self {
        let values: BTreeMap<String, String> = serde_json::from_str(environment).unwrap_or_default();
        let mut forms = Vec::new();
        for (name, value) in values {
            if value.len() < SHORTEST {
                continue;
            }
            let mark = format!("[secret {name}]");
            let written = serde_json::to_string(&value).unwrap_or_default();
            if let Some(inner) = written.strip_prefix('"').and_then(|text| text.strip_suffix('"'))
                && inner != value
            {
                forms.push((inner.to_owned(), mark.clone()));
            }
            forms.push((value, mark));
        }
        // One that holds another goes first.
        forms.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        Self { forms }
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.forms.is_empty()
    }

    /// Whether a text holds none of them.
    pub fn finds_nothing(&self, text: &str) -> bool {
        !self.forms.iter().any(|(form, _)| text.contains(form.as_str()))
    }

    /// Takes every value out, and where the text may have been cut in the middle of one, its beginning too; and pieces
    /// of values between quotation marks, as an engine cites what it cannot parse.
    pub fn clean(&self, text: &mut String) {
        for (form, mark) in &self.forms {
            if text.contains(form.as_str()) {
                *text = text.replace(form.as_str(), mark);
            }
        }
        for (form, mark) in &self.forms {
            let cuts = form.char_indices().map(|(at, _)| at).rev();
            let part = cuts
                .take_while(|at| *at >= SHORTEST_PART)
                .find_map(|at| form.get(..at).filter(|part| text.ends_with(part)));
            if let Some(part) = part {
                text.truncate(text.len() - part.len());
                text.push_str(mark);
            }
        }
        for (form, mark) in &self.forms {
            take_out_cited(text, form, mark);
        }
    }
}

/// Takes out pieces of `form` of [`SHORTEST`] bytes or more that stand between quotation marks with nothing else.
fn take_out_cited(text: &mut String, form: &str, mark: &str) {
    let mut from = 0;
    while let Some((at, quote)) = text.get(from..).and_then(|rest| {
        rest.char_indices()
            .find(|(_, character)| QUOTES.contains(character))
    }) {
        from += at + quote.len_utf8();
        let cited = text.get(from..).unwrap_or_default();
        let is_closed = |end: &usize| {
            let rest = cited.get(*end..).unwrap_or_default();
            rest.is_empty() || rest.starts_with(quote)
        };
        let ends = cited
            .char_indices()
            .map(|(at, character)| at + character.len_utf8());
        let piece = ends
            .skip_while(|end| *end < SHORTEST)
            .take_while(|end| cited.get(..*end).is_some_and(|piece| form.contains(piece)))
            .filter(is_closed)
            .last();
        if let Some(end) = piece {
            text.replace_range(from..from + end, mark);
            from += mark.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(text: &str) -> String {
        let environment = r#"{"TOKEN":"hunter2!","LONGER":"hunter2!more","QUOTED":"a\"b\\c\n","SHORT":"eu","WORD":"früh stück"}"#;
        let mut text = text.to_owned();
        Redactor::new(environment).clean(&mut text);
        text
    }

    #[test]
    fn a_value_is_taken_out_wherever_it_stands() {
        assert_eq!(
            cleaned("x hunter2! y hunter2!"),
            "x [secret TOKEN] y [secret TOKEN]"
        );
        assert_eq!(cleaned("hunter2!more"), "[secret LONGER]");
        assert_eq!(cleaned("a\"b\\c\n"), "[secret QUOTED]");
        assert_eq!(cleaned(r#"{"k":"a\"b\\c\n"}"#), r#"{"k":"[secret QUOTED]"}"#);
        assert_eq!(cleaned("früh stück"), "[secret WORD]");
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in ["", "eu", "hunter", "hunt er2!", "nothing of the kind"] {
            if !"hunter2!".starts_with(text) || text.len() < SHORTEST_PART {
                assert_eq!(cleaned(text), text);
            }
        }
    }

    #[test]
    fn a_text_that_was_cut_within_a_value_ends_before_it() {
        assert_eq!(cleaned("the token is hunter2"), "the token is [secret LONGER]");
        assert_eq!(cleaned("the token is hunt"), "the token is [secret LONGER]");
        assert_eq!(cleaned("the token is hun"), "the token is hun");
        assert_eq!(cleaned("früh st"), "[secret WORD]");
    }

    #[test]
    fn a_piece_that_an_engine_cites_is_taken_out() {
        assert_eq!(
            cleaned("unexpected token: 'hunter2'"),
            "unexpected token: '[secret LONGER]'"
        );
        assert_eq!(
            cleaned(r#"Unexpected token 'u', ..."unter2!m"... is not valid JSON"#),
            r#"Unexpected token 'u', ..."[secret LONGER]"... is not valid JSON"#
        );
        for stays in [
            r#"a "hunt" for 'more'"#,
            "'",
            "the hunter2 of it",
            r#"{"k":"hunter2 and others"}"#,
        ] {
            assert_eq!(cleaned(stays), stays);
        }
    }

    #[test]
    fn without_an_environment_nothing_is_looked_for() {
        for text in ["{}", "null", "not JSON", r#"{"A":"short"}"#] {
            assert!(Redactor::new(text).is_empty(), "{text}");
        }
    }
}
