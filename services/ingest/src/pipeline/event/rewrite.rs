//! The text of an event with some of its entries replaced. What is not named stays as it was sent, byte for byte.

use std::borrow::Cow;

use millrace_event::json::{Kind, Value};

/// What is to change.
#[derive(Debug, Default)]
pub(in crate::pipeline) struct Changes<'a> {
    front: Vec<(&'static str, Cow<'a, str>)>,
    back: Vec<(&'static str, Cow<'a, str>)>,
    dropped: Vec<&'static str>,
}

impl<'a> Changes<'a> {
    /// The entry stands first, with this JSON.
    pub(super) fn front(&mut self, name: &'static str, json: impl Into<Cow<'a, str>>) {
        self.front.push((name, json.into()));
    }

    /// The entry stands last, with this JSON.
    pub(super) fn back(&mut self, name: &'static str, json: impl Into<Cow<'a, str>>) {
        self.back.push((name, json.into()));
    }

    /// The entry goes.
    pub(super) fn drop(&mut self, name: &'static str) {
        self.dropped.push(name);
    }

    /// The text; none where nothing changes.
    pub(super) fn apply(&self, object: Value<'a>) -> Option<String> {
        if self.front.is_empty() && self.back.is_empty() && self.dropped.is_empty() {
            return None;
        }
        let mut text = Object::with_capacity(object.text().len() + 256);
        for (name, json) in &self.front {
            text.entry(&format!("\"{name}\""), json);
        }
        let named = |name: &str| {
            let set = self.front.iter().chain(&self.back).map(|(set, _)| *set);
            set.chain(self.dropped.iter().copied()).any(|set| set == name)
        };
        for (name, value) in object.entries() {
            // Readers take the last of equal names, so what is replaced must go.
            if !named(&name.unescape().text) {
                text.entry(name.text(), value.text());
            }
        }
        for (name, json) in &self.back {
            text.entry(&format!("\"{name}\""), json);
        }
        Some(text.end())
    }
}

/// What an event's object becomes with the batch's: the event's own entries win. None where it stays as it is.
pub(super) fn merged<'a>(own: Option<Value<'a>>, of_batch: Option<Value<'a>>) -> Option<Cow<'a, str>> {
    let of_batch = of_batch?;
    let own = match own.map(|own| (own, own.kind())) {
        None | Some((_, Kind::Null)) => return Some(Cow::Borrowed(of_batch.text())),
        Some((own, Kind::Object)) => own,
        Some(_) => return None,
    };
    let mut missing = of_batch
        .entries()
        .filter(|(name, _)| own.get(&name.unescape().text).is_none())
        .peekable();
    missing.peek()?;
    let mut text = Object::with_capacity(own.text().len() + of_batch.text().len());
    for (name, value) in own.entries().chain(missing) {
        text.entry(name.text(), value.text());
    }
    Some(Cow::Owned(text.end()))
}

/// An object on its way to be written.
#[derive(Debug)]
pub(in crate::pipeline) struct Object(String);

impl Object {
    pub(in crate::pipeline) fn with_capacity(bytes: usize) -> Self {
        let mut text = String::with_capacity(bytes);
        text.push('{');
        Self(text)
    }

    /// `name` is a JSON string with its quotes.
    pub(in crate::pipeline) fn entry(&mut self, name: &str, json: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(name);
        self.0.push(':');
        self.0.push_str(json);
    }

    pub(in crate::pipeline) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}
