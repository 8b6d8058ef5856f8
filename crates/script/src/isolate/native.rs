//! What our own JavaScript asks Rust for: bytes, digests, addresses, randomness and timers. Each takes and gives
//! plain values; the interfaces that functions see stand in `web.js`.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use deno_core::v8;
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use url::{Url, form_urlencoded};

use super::calls::{call, millis};
use super::timers::{cancel_timer, set_timer};

type Scope<'a, 's, 'i> = &'a mut v8::PinScope<'s, 'i>;
type Arguments<'s> = v8::FunctionCallbackArguments<'s>;
type Returned<'s> = v8::ReturnValue<'s>;

/// Padding may be there or not, and what the last symbol has too many bits of does not matter.
const FORGIVING: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// An object with every native function by its name; `None` when the engine has no room for it.
pub(super) fn natives<'s>(scope: &mut v8::PinScope<'s, '_>) -> Option<v8::Local<'s, v8::Object>> {
    let natives = v8::Object::new(scope);
    macro_rules! publish {
        ($($name:literal: $native:expr),* $(,)?) => {$(
            let key = v8::String::new(scope, $name)?;
            let native = v8::Function::new(scope, $native)?;
            natives.set(scope, key.into(), native.into())?;
        )*};
    }
    publish! {
        "encode": encode,
        "decode": decode,
        "atob": atob,
        "btoa": btoa,
        "digest": digest,
        "uuid": uuid,
        "parseUrl": parse_url,
        "changeUrl": change_url,
        "parseForm": parse_form,
        "writeForm": write_form,
        "setTimer": set_timer,
        "cancelTimer": cancel_timer,
        "call": call,
        "millis": millis,
        "toBase64": to_base64,
        "fromBase64": from_base64,
    }
    Some(natives)
}

fn text(scope: Scope<'_, '_, '_>, args: &Arguments<'_>, at: i32) -> String {
    args.get(at).to_rust_string_lossy(scope)
}

fn bytes_of(args: &Arguments<'_>, at: i32) -> Option<Vec<u8>> {
    let view = v8::Local::<v8::ArrayBufferView>::try_from(args.get(at)).ok()?;
    let mut bytes = vec![0; view.byte_length()];
    let copied = view.copy_contents(&mut bytes);
    bytes.truncate(copied);
    Some(bytes)
}

fn give_text(scope: Scope<'_, '_, '_>, returned: &mut Returned<'_>, text: &str) {
    match v8::String::new(scope, text) {
        Some(text) => returned.set(text.into()),
        None => throw(scope, "the text is longer than the engine holds"),
    }
}

fn give_bytes(scope: Scope<'_, '_, '_>, returned: &mut Returned<'_>, bytes: Vec<u8>) {
    let length = bytes.len();
    let store = v8::ArrayBuffer::new_backing_store_from_vec(bytes).make_shared();
    let buffer = v8::ArrayBuffer::with_backing_store(scope, &store);
    if let Some(array) = v8::Uint8Array::new(scope, buffer, 0, length) {
        returned.set(array.into());
    }
}

fn give_list(scope: Scope<'_, '_, '_>, returned: &mut Returned<'_>, texts: &[&str]) {
    let list: Option<Vec<v8::Local<'_, v8::Value>>> = texts
        .iter()
        .map(|text| v8::String::new(scope, text).map(Into::into))
        .collect();
    match list {
        Some(list) => returned.set(v8::Array::new_with_elements(scope, &list).into()),
        None => throw(scope, "the text is longer than the engine holds"),
    }
}

pub(super) fn throw(scope: Scope<'_, '_, '_>, message: &str) {
    if let Some(message) = v8::String::new(scope, message) {
        let error = v8::Exception::type_error(scope, message);
        scope.throw_exception(error);
    }
}

/// `(text)` → bytes in UTF-8
fn encode(scope: Scope<'_, '_, '_>, args: Arguments<'_>, mut returned: Returned<'_>) {
    let text = text(scope, &args, 0);
    give_bytes(scope, &mut returned, text.into_bytes());
}

/// `(bytes, fatal, keepMark)` → text, or nothing where it must be UTF-8 and is not
fn decode(scope: Scope<'_, '_, '_>, args: Arguments<'_>, mut returned: Returned<'_>) {
    let Some(bytes) = bytes_of(&args, 0) else {
        return throw(scope, "bytes are needed");
    };
    let (fatal, keep_mark) = (args.get(1).is_true(), args.get(2).is_true());
    if fatal && std::str::from_utf8(&bytes).is_err() {
        return;
    }
    let text = String::from_utf8_lossy(&bytes);
    let plain = if keep_mark {
        &text
    } else {
        text.strip_prefix('\u{feff}').unwrap_or(&text)
    };
    give_text(scope, &mut returned, plain);
}

/// `(base64)` → a text of characters up to 255, or nothing
fn atob(scope: Scope<'_, '_, '_>, args: Arguments<'_>, mut returned: Returned<'_>) {
    let mut text = text(scope, &args, 0);
    text.retain(|c| !matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{c}'));
    // Padding belongs at the end of a whole group or is left out.
    if text.ends_with('=') && !text.len().is_multiple_of(4) {
        return;
    }
    let Ok(bytes) = FORGIVING.decode(text) else { return };
    if let Some(text) = v8::String::new_from_one_byte(scope, &bytes, v8::NewStringType::Normal) {
        returned.set(text.into());
    }
}

/// `(text)` → base64, or nothing where a character is over 255
fn btoa(scope: Scope<'_, '_, '_>, args: Arguments<'_>, mut returned: Returned<'_>) {
    let text = text(scope, &args, 0);
    let bytes: Result<Vec<u8>, _> = text.chars().map(|c| u8::try_from(u32::from(c))).collect();
    if let Ok(bytes) = bytes {
        give_text(scope, &mut returned, &FORGIVING.encode(bytes));
    }
}

/// `(bytes)` → base64
fn to_base64(scope: Scope<'_, '_, '_>, args: Arguments<'_>, mut returned: Returned<'_>) {
    match bytes_of(&args, 0) {
        Some(bytes) => give_text(scope, &mut returned, &FORGIVING.encode(bytes)),
        None => throw(scope, "bytes are needed"),
    }
}

/// `(base64)` → bytes, or nothing
fn from_base64(scope: Scope<'_, '_, '_>, args: Arguments<'_>, mut returned: Returned<'_>) {
    if let Ok(bytes) = FORGIVING.decode(text(scope, &args, 0)) {
        give_bytes(scope, &mut returned, bytes);
    }
}

/// `(algorithm, bytes)` → bytes, or nothing where the algorithm is not known
fn digest(scope: Scope<'_, '_, '_>, args: Arguments<'_>, mut returned: Returned<'_>) {
    let algorithm = text(scope, &args, 0);
    let Some(bytes) = bytes_of(&args, 1) else {
        return throw(scope, "bytes are needed");
    };
    let digest = match algorithm.to_ascii_uppercase().as_str() {
        "SHA-1" => sha1::Sha1::digest(&bytes).to_vec(),
        "SHA-256" => Sha256::digest(&bytes).to_vec(),
        "SHA-384" => Sha384::digest(&bytes).to_vec(),
        "SHA-512" => Sha512::digest(&bytes).to_vec(),
        _ => return,
    };
    give_bytes(scope, &mut returned, digest);
}

/// `()` → a random UUID of version 4
fn uuid(scope: Scope<'_, '_, '_>, _args: Arguments<'_>, mut returned: Returned<'_>) {
    let mut random = [0; 16];
    if getrandom::fill(&mut random).is_err() {
        return throw(scope, "the system gives no random bytes");
    }
    let text = uuid::Builder::from_random_bytes(random).into_uuid().to_string();
    give_text(scope, &mut returned, &text);
}

/// The parts of an address in the order that `web.js` knows.
fn give_url(scope: Scope<'_, '_, '_>, returned: &mut Returned<'_>, url: &Url) {
    use url::quirks;
    let parts = [
        quirks::href(url),
        &quirks::origin(url),
        quirks::protocol(url),
        quirks::username(url),
        quirks::password(url),
        quirks::host(url),
        quirks::hostname(url),
        quirks::port(url),
        quirks::pathname(url),
        quirks::search(url),
        quirks::hash(url),
    ];
    give_list(scope, returned, &parts);
}

/// `(text, base?)` → the parts, or nothing where it is no address
fn parse_url(scope: Scope<'_, '_, '_>, args: Arguments<'_>, mut returned: Returned<'_>) {
    let address = text(scope, &args, 0);
    let parsed = if args.get(1).is_undefined() {
        Url::parse(&address)
    } else {
        Url::parse(&text(scope, &args, 1)).and_then(|base| base.join(&address))
    };
    if let Ok(url) = parsed {
        give_url(scope, &mut returned, &url);
    }
}

/// `(href, part, value)` → the parts, or nothing where `href` would be no address; other values are ignored as the
/// standard says
fn change_url(scope: Scope<'_, '_, '_>, args: Arguments<'_>, mut returned: Returned<'_>) {
    use url::quirks;
    let (href, part, value) = (
        text(scope, &args, 0),
        text(scope, &args, 1),
        text(scope, &args, 2),
    );
    let Ok(mut url) = Url::parse(&href) else { return };
    // A value that does not fit leaves the address as it was.
    let _accepted: Result<(), ()> = match part.as_str() {
        "href" => match Url::parse(&value) {
            Ok(other) => {
                url = other;
                Ok(())
            }
            Err(_) => return,
        },
        "protocol" => quirks::set_protocol(&mut url, &value),
        "username" => quirks::set_username(&mut url, &value),
        "password" => quirks::set_password(&mut url, &value),
        "host" => quirks::set_host(&mut url, &value),
        "hostname" => quirks::set_hostname(&mut url, &value),
        "port" => quirks::set_port(&mut url, &value),
        "pathname" => {
            quirks::set_pathname(&mut url, &value);
            Ok(())
        }
        "search" => {
            quirks::set_search(&mut url, &value);
            Ok(())
        }
        _ => {
            quirks::set_hash(&mut url, &value);
            Ok(())
        }
    };
    give_url(scope, &mut returned, &url);
}

/// `(query)` → names and values in turn
fn parse_form(scope: Scope<'_, '_, '_>, args: Arguments<'_>, mut returned: Returned<'_>) {
    let query = text(scope, &args, 0);
    let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
    let flat: Vec<&str> = pairs
        .iter()
        .flat_map(|(name, value)| [&**name, &**value])
        .collect();
    give_list(scope, &mut returned, &flat);
}

/// `(names and values in turn)` → query
fn write_form(scope: Scope<'_, '_, '_>, args: Arguments<'_>, mut returned: Returned<'_>) {
    let Ok(flat) = v8::Local::<v8::Array>::try_from(args.get(0)) else {
        return throw(scope, "a list is needed");
    };
    let mut form = form_urlencoded::Serializer::new(String::new());
    for at in (0..flat.length()).step_by(2) {
        let (Some(name), Some(value)) = (flat.get_index(scope, at), flat.get_index(scope, at + 1)) else {
            return;
        };
        let (name, value) = (
            name.to_rust_string_lossy(scope),
            value.to_rust_string_lossy(scope),
        );
        form.append_pair(&name, &value);
    }
    give_text(scope, &mut returned, &form.finish());
}
