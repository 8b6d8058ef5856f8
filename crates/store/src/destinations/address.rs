//! The addresses of destinations, which hold passwords: sealed for one workspace and one destination of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use millrace_event::destination::SealedUrl;

use crate::keyring::{Keyring, OpenError, Sealed};
use crate::{Error, WorkspaceId};

/// What an address is sealed as. No secret of a function has a name with a space.
fn name_of(destination: &str) -> String {
    format!("destination {destination}")
}

/// Seals the address of a destination, which goes by that name in its workspace.
///
/// # Errors
/// When the system gives no random bytes.
pub fn seal_url(
    keys: &Keyring,
    workspace: &WorkspaceId,
    destination: &str,
    url: &str,
) -> Result<SealedUrl, Error> {
    let sealed = keys.seal(workspace, &name_of(destination), url)?;
    Ok(SealedUrl {
        key_id: sealed.key_id,
        sealed: STANDARD.encode(sealed.bytes),
    })
}

/// The address that was sealed.
///
/// # Errors
/// When its key is not there, or it is not what was sealed for this destination.
pub fn open_url(
    keys: &Keyring,
    workspace: &WorkspaceId,
    destination: &str,
    url: &SealedUrl,
) -> Result<String, OpenError> {
    let name = name_of(destination);
    let bytes = STANDARD
        .decode(&url.sealed)
        .map_err(|_| OpenError::Altered { name: name.clone() })?;
    let sealed = Sealed {
        name,
        key_id: url.key_id.clone(),
        bytes,
    };
    keys.open(workspace, &sealed)
}
