//! Postgres and Redis: repositories that return domain types.
//!
//! Postgres holds the configuration (workspaces, keys, functions, chains) and its schema is owned here, with
//! its migrations. Redis holds what may be lost without losing an event: the memory of `message_id`s.
//!
//! No row, client or SQL type leaves this crate. Every call has a deadline, every pool and queue a size, and
//! a store that is away gives an [`Error`] whose [`Error::retry`] says whether waiting helps. Nothing here
//! retries by itself: the caller knows what an event or an operator can wait for.

pub mod admission;
pub mod chains;
pub mod dedup;
pub mod destinations;
pub mod error;
pub mod fetch;
pub mod fields;
pub mod function_debug;
pub mod functions;
pub mod id;
pub mod keyring;
pub mod keys;
pub mod limits;
pub mod locks;
pub mod name;
pub mod notice;
pub mod postgres;
pub mod quarantine;
pub mod redis;
pub mod rules;
pub mod secret;
pub mod secrets;
pub mod tokens;
pub mod values;
pub mod workspaces;

pub use chains::Chains;
pub use dedup::Dedup;
pub use destinations::Destinations;
pub use error::{Entity, Error, Part, Retry};
pub use fetch::{FetchOrigins, Origin};
pub use fields::Fields;
pub use function_debug::FunctionDebug;
pub use functions::Functions;
pub use id::{ChainId, DestinationId, FunctionId, KeyId, OrganizationId, SourceId, TokenId, WorkspaceId};
pub use keyring::Keyring;
pub use keys::Keys;
pub use limits::Limiter;
pub use locks::Locks;
pub use name::Name;
pub use notice::Notice;
pub use postgres::Postgres;
pub use quarantine::Quarantines;
pub use redis::Redis;
pub use secrets::Secrets;
pub use tokens::Tokens;
pub use values::Values;
pub use workspaces::Workspaces;
