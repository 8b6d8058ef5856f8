//! The files of a new migration.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Writes `NNNN_name.up.sql` and `.down.sql` with the next number into `folder`, empty but for a comment; a dry run only
/// gives their names.
pub(super) fn write(folder: &Path, name: &str, dry_run: bool) -> Result<[PathBuf; 2]> {
    let symbols = name
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    ensure!(
        !name.is_empty() && symbols,
        "`{name}` is not lower-case letters, digits and underscores"
    );
    let number = next(folder)?;
    let files = ["up", "down"].map(|way| folder.join(format!("{number:04}_{name}.{way}.sql")));
    if dry_run {
        return Ok(files);
    }
    for (file, purpose) in files
        .iter()
        .zip(["What this changes, and why.", "Takes back what `up` does."])
    {
        let comment = format!("-- {purpose}\n");
        let mut created = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(file)
            .with_context(|| format!("{} cannot be made", file.display()))?;
        std::io::Write::write_all(&mut created, comment.as_bytes())
            .with_context(|| format!("{} cannot be written", file.display()))?;
    }
    Ok(files)
}

/// One more than the highest number of a file in `folder`.
fn next(folder: &Path) -> Result<u32> {
    let entries = fs::read_dir(folder).with_context(|| {
        format!(
            "{} cannot be read; run this in a checkout, or name it with --folder",
            folder.display()
        )
    })?;
    let mut highest = 0;
    for entry in entries {
        let name = entry
            .with_context(|| format!("{} cannot be read", folder.display()))?
            .file_name();
        let number = name
            .to_string_lossy()
            .split_once('_')
            .and_then(|(number, _)| number.parse::<u32>().ok());
        highest = highest.max(number.unwrap_or(0));
    }
    Ok(highest + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_migration_follows_the_last_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let names = |files: [PathBuf; 2]| {
            files.map(|file| file.file_name().expect("a name").to_string_lossy().into_owned())
        };
        let tried = write(folder.path(), "quotas", true).expect("names");
        assert!(!tried[0].exists() && !tried[1].exists(), "only tried");
        let first = write(folder.path(), "quotas", false).expect("files");
        assert_eq!(tried, first);
        assert_eq!(names(first), ["0001_quotas.up.sql", "0001_quotas.down.sql"]);
        fs::write(folder.path().join("0041_other.up.sql"), "").expect("a file");
        let next = write(folder.path(), "more_quotas", false).expect("files");
        assert_eq!(
            names(next),
            ["0042_more_quotas.up.sql", "0042_more_quotas.down.sql"]
        );
    }

    #[test]
    fn names_that_are_no_file_names_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["", "../x", "A", "a-b", "a b"] {
            assert!(write(folder.path(), name, false).is_err(), "{name}");
        }
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }
}
