//! The keys that secrets are sealed under, in a file of their own: whoever reads the database alone reads no secret.
//!
//! A line of the file is a key: its id and 32 bytes in base64. The first line seals, all of them open, so that a new key
//! can be put in front while what older ones sealed is still read.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::{Error, WorkspaceId};

/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// Largest file that is read, in bytes.
const FILE_BYTES: u64 = 64 << 10;
/// Nobody but the owner and the group of the file may open it.
const OTHERS: u32 = 0o007;

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read or written.
    #[error("the key file {path} cannot be {done}")]
    File {
        /// Which.
        path: PathBuf,
        /// What was tried.
        done: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// Everybody can read it.
    #[error(
        "the key file {0} is open to others: `chmod 600` it, and change the key where others use this machine"
    )]
    Open(PathBuf),
    /// A line is no key.
    #[error("line {line} of the key file {path} is not `<id> <32 bytes in base64>`")]
    Line {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// There is no key in it.
    #[error("the key file {0} holds no key")]
    Empty(PathBuf),
    /// The operating system gave no random bytes.
    #[error("no random bytes: {0}")]
    Entropy(getrandom::Error),
}

/// A sealed secret is not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The key it was sealed under is not in the file.
    #[error("the secret {name} is sealed under key {key_id}, which is not in the key file")]
    NoKey {
        /// The secret.
        name: String,
        /// The key.
        key_id: String,
    },
    /// It was changed, or belongs to another workspace or name.
    #[error("the secret {name} is not what was sealed")]
    Altered {
        /// The secret.
        name: String,
    },
}

/// A secret as the database holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Its name, as functions know it.
    pub name: String,
    /// The key it is sealed under.
    pub key_id: String,
    /// Nonce, ciphertext and tag.
    pub bytes: Vec<u8>,
}

struct Key {
    id: String,
    key: LessSafeKey,
}

/// Keys, the one that seals first.
pub struct Keyring {
    keys: Vec<Key>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<&str> = self.keys.iter().map(|key| key.id.as_str()).collect();
        f.debug_struct("Keyring")
            .field("ids", &ids)
            .finish_non_exhaustive()
    }
}

impl Keyring {
    /// The keys in a file.
    ///
    /// # Errors
    /// When it cannot be read, is open to others or holds something else.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let failed = |source| KeyFileError::File {
            path: path.into(),
            done: "read",
            source,
        };
        let file = File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.mode() & OTHERS != 0 {
            return Err(KeyFileError::Open(path.into()));
        }
        let mut text = String::new();
        file.take(FILE_BYTES).read_to_string(&mut text).map_err(failed)?;
        let lines = text.lines().enumerate();
        let keys: Vec<Key> = lines
            .filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
            .map(|(at, line)| {
                Key::parse(line).ok_or_else(|| KeyFileError::Line {
                    path: path.into(),
                    line: at + 1,
                })
            })
            .collect::<Result<_, _>>()?;
        if keys.is_empty() {
            return Err(KeyFileError::Empty(path.into()));
        }
        Ok(Self { keys })
    }

    /// Makes a file with one key, which only its owner reads. Gives the key's id.
    ///
    /// # Errors
    /// When there is such a file already, or it cannot be written.
    pub fn create(path: &Path) -> Result<String, KeyFileError> {
        let (id, line) = fresh()?;
        write(path, &line)?;
        Ok(id)
    }

    /// Whether [`Self::create`] could make a file there, as far as can be seen without making one.
    ///
    /// # Errors
    /// As [`Self::create`]: when there is one already, or no folder for it.
    pub fn could_create(path: &Path) -> Result<(), KeyFileError> {
        let failed = |kind: std::io::ErrorKind| KeyFileError::File {
            path: path.into(),
            done: "made",
            source: kind.into(),
        };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        match (path.symlink_metadata(), folder.is_none_or(Path::is_dir)) {
            (Ok(_), _) => Err(failed(std::io::ErrorKind::AlreadyExists)),
            (Err(_), false) => Err(failed(std::io::ErrorKind::NotFound)),
            (Err(_), true) => Ok(()),
        }
    }

    /// Puts a new key in front of those in a file; it seals from now on. Gives its id.
    ///
    /// # Errors
    /// When the file holds no keys, or cannot be replaced.
    pub fn rotate(path: &Path) -> Result<String, KeyFileError> {
        Self::read(path)?;
        let failed = |done| {
            move |source| KeyFileError::File {
                path: path.into(),
                done,
                source,
            }
        };
        let before = fs::read_to_string(path).map_err(failed("read"))?;
        let (id, line) = fresh()?;
        // Beside it and then in its place: there is a whole file at every moment.
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{id}"));
        let beside = PathBuf::from(name);
        write(&beside, &format!("{line}{before}"))?;
        fs::rename(&beside, path).map_err(failed("replaced"))?;
        Ok(id)
    }

    /// The id of the key that seals.
    pub fn current(&self) -> &str {
        self.keys.first().map_or("", |key| &key.id)
    }

    /// Seals a value for this workspace and name only.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn seal(&self, workspace: &WorkspaceId, name: &str, value: &str) -> Result<Sealed, Error> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(Error::Entropy)?;
        let invalid = || Error::Invalid {
            what: "a secret",
            reason: "cannot be sealed",
        };
        let key = self.keys.first().ok_or_else(invalid)?;
        let mut bytes = value.as_bytes().to_vec();
        let bound = Aad::from(bound_to(workspace, name));
        let tag = key
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), bound, &mut bytes)
            .map_err(|_| invalid())?;
        Ok(Sealed {
            name: name.to_owned(),
            key_id: key.id.clone(),
            bytes: [&nonce, bytes.as_slice(), tag.as_ref()].concat(),
        })
    }

    /// The value that was sealed.
    ///
    /// # Errors
    /// When its key is not here, or it is not what was sealed for this workspace and name.
    pub fn open(&self, workspace: &WorkspaceId, sealed: &Sealed) -> Result<String, OpenError> {
        let Sealed { name, key_id, bytes } = sealed;
        let key = self.keys.iter().find(|key| key.id == *key_id);
        let Some(key) = key else {
            return Err(OpenError::NoKey {
                name: name.clone(),
                key_id: key_id.clone(),
            });
        };
        let altered = || OpenError::Altered { name: name.clone() };
        let (nonce, rest) = bytes.split_first_chunk::<NONCE_LEN>().ok_or_else(altered)?;
        let mut rest = rest.to_vec();
        let bound = Aad::from(bound_to(workspace, name));
        let opened = key
            .key
            .open_in_place(Nonce::assume_unique_for_key(*nonce), bound, &mut rest);
        let value = opened.map_err(|_| altered())?.to_vec();
        String::from_utf8(value).map_err(|_| altered())
    }
}

impl Key {
    fn parse(line: &str) -> Option<Self> {
        let (id, encoded) = line.trim().split_once(' ')?;
        let bytes: [u8; KEY_BYTES] = STANDARD.decode(encoded.trim()).ok()?.try_into().ok()?;
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes).ok()?);
        let id = id.to_owned();
        Some(Self { id, key })
    }
}

/// What a sealed value is bound to: moved to another row it does not open.
fn bound_to(workspace: &WorkspaceId, name: &str) -> Vec<u8> {
    format!("millrace secret 1\0{workspace}\0{name}").into_bytes()
}

/// A new key as a line, and its id.
fn fresh() -> Result<(String, String), KeyFileError> {
    let (mut id, mut key) = ([0; 4], [0; KEY_BYTES]);
    getrandom::fill(&mut id).map_err(KeyFileError::Entropy)?;
    getrandom::fill(&mut key).map_err(KeyFileError::Entropy)?;
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let line = format!("{id} {}\n", STANDARD.encode(key));
    Ok((id, line))
}

/// A new file that only its owner reads, on the disk when this returns.
fn write(path: &Path, text: &str) -> Result<(), KeyFileError> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let written = made.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|source| KeyFileError::File {
        path: path.into(),
        done: "made",
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn workspace(id: &str) -> WorkspaceId {
        id.parse().expect("an id")
    }

    #[test]
    fn a_sealed_value_opens_for_its_own_workspace_and_name_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys");
        Keyring::create(&path).expect("made");
        let keys = Keyring::read(&path).expect("keys");
        let (a, b) = (workspace("ws_a"), workspace("ws_b"));
        let sealed = keys.seal(&a, "TOKEN", "hunter2 é").expect("sealed");
        assert!(!sealed.bytes.windows(7).any(|part| part == b"hunter2"));
        assert_eq!(keys.open(&a, &sealed).as_deref(), Ok("hunter2 é"));
        let altered = Err(OpenError::Altered { name: "TOKEN".into() });
        assert_eq!(keys.open(&b, &sealed), altered);
        let moved = Sealed {
            name: "OTHER".into(),
            ..sealed.clone()
        };
        assert_eq!(
            keys.open(&a, &moved),
            Err(OpenError::Altered { name: "OTHER".into() })
        );
        for at in 0..sealed.bytes.len() {
            let mut changed = sealed.clone();
            changed.bytes[at] ^= 1;
            assert_eq!(keys.open(&a, &changed), altered, "byte {at}");
            changed.bytes.truncate(at);
            assert_eq!(keys.open(&a, &changed), altered, "cut at {at}");
        }
        let again = keys.seal(&a, "TOKEN", "hunter2 é").expect("sealed");
        assert_ne!(again.bytes, sealed.bytes, "no two seals are alike");
    }

    #[test]
    fn after_a_rotation_the_new_key_seals_and_the_old_one_still_opens() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys");
        let first = Keyring::create(&path).expect("made");
        let a = workspace("ws_a");
        let old = Keyring::read(&path)
            .expect("keys")
            .seal(&a, "T", "1")
            .expect("sealed");
        let second = Keyring::rotate(&path).expect("rotated");
        let keys = Keyring::read(&path).expect("keys");
        assert_eq!(
            (keys.current(), old.key_id.as_str()),
            (second.as_str(), first.as_str())
        );
        assert_eq!(keys.open(&a, &old).as_deref(), Ok("1"));
        let new = keys.seal(&a, "T", "2").expect("sealed");
        assert_eq!(new.key_id, second);
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // The old line taken out: what it sealed does not open any more.
        let text = fs::read_to_string(&path).expect("text");
        fs::write(&path, text.lines().next().expect("a line")).expect("written");
        let keys = Keyring::read(&path).expect("keys");
        let missing = OpenError::NoKey {
            name: "T".into(),
            key_id: first,
        };
        assert_eq!(keys.open(&a, &old), Err(missing));
        assert_eq!(keys.open(&a, &new).as_deref(), Ok("2"));
    }

    #[test]
    fn a_file_that_is_no_key_file_is_refused_and_never_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys");
        Keyring::create(&path).expect("made");
        assert!(matches!(
            Keyring::create(&path),
            Err(KeyFileError::File { done: "made", .. })
        ));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("changed");
        assert!(matches!(Keyring::read(&path), Err(KeyFileError::Open(_))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).expect("changed");
        Keyring::read(&path).expect("a group may read it");
        let other = folder.path().join("other");
        for (text, line) in [("k c2hvcnQ=\n", 1), ("# keys\n\nno key here\n", 3)] {
            drop(fs::remove_file(&other));
            write(&other, text).expect("made");
            match Keyring::read(&other) {
                Err(KeyFileError::Line { line: found, .. }) => assert_eq!(found, line),
                read => panic!("{text}: {read:?}"),
            }
        }
        drop(fs::remove_file(&other));
        write(&other, "# nothing\n").expect("made");
        assert!(matches!(Keyring::read(&other), Err(KeyFileError::Empty(_))));
    }
}
