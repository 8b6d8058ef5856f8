//! What may have been meant by a name that is none.

use serde_json::{Map, Value};

use super::sources::{PREFIX, SEPARATOR};

/// Most names that are listed.
const MOST: usize = 12;

/// Why a key is none, with the one that looks most like it, or those that there are.
pub(super) fn key(tree: &Value, path: &str) -> String {
    let mut known = Vec::new();
    leaves(tree, "", &mut known);
    let near = known
        .iter()
        .map(|name| (distance(&plain(name), &plain(path)), name))
        .min()
        .filter(|(distance, name)| *distance <= 1 + name.len() / 6);
    if let Some((_, near)) = near {
        return format!("unknown key, is `{near}` meant?");
    }
    let section = path.split('.').next().unwrap_or_default();
    match (tree.get(section), tree) {
        (Some(Value::Object(keys)), _) => format!("unknown key; `{section}` has {}", names(keys)),
        (_, Value::Object(sections)) => format!("unknown key; there are {}", names(sections)),
        _ => "unknown key".to_owned(),
    }
}

/// The setting that a variable of this name was to be, where it looks like one and is none: `MILLRACE_KAFKA__BROKERS`.
pub(super) fn variable(name: &str) -> Option<String> {
    let rest = name.strip_prefix(PREFIX)?.strip_prefix('_')?;
    let looks = rest.contains(SEPARATOR) && !rest.starts_with('_');
    looks.then(|| format!("{PREFIX}{SEPARATOR}{rest}"))
}

/// `a.b_c` and `a_b.c` are one mistake apart at most.
fn plain(path: &str) -> String {
    path.replace('.', "_")
}

fn names(keys: &Map<String, Value>) -> String {
    let some: Vec<String> = keys.keys().take(MOST).map(|key| format!("`{key}`")).collect();
    let more = if keys.len() > MOST { " and others" } else { "" };
    format!("{}{more} (`--check-config` prints all)", some.join(", "))
}

fn leaves(tree: &Value, above: &str, found: &mut Vec<String>) {
    let Value::Object(fields) = tree else {
        found.push(above.to_owned());
        return;
    };
    for (name, below) in fields {
        let path = if above.is_empty() {
            name.clone()
        } else {
            format!("{above}.{name}")
        };
        leaves(below, &path, found);
    }
}

/// How many characters are to be put in, taken out, exchanged or swapped with the next (the optimal string alignment).
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, b) in right.iter().enumerate() {
            let exchanged = row[j] + usize::from(a != b);
            let mut least = exchanged.min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && *a == right[j - 1] && left[i - 1] == *b {
                least = least.min(before[j - 1] + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or_default()
}
