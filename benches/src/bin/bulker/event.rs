//! The events, and where each of their fields is.

use std::fmt::Write as _;

/// Where a column's value is in an event.
pub(crate) struct Field {
    pub(crate) column: &'static str,
    pub(crate) path: &'static [&'static str],
}

/// The columns that an event fills. The types are those that the table gets from Millrace.
pub(crate) const FIELDS: [Field; 24] = [
    field("type", &["type"]),
    field("message_id", &["messageId"]),
    field("anonymous_id", &["anonymousId"]),
    field("user_id", &["userId"]),
    field("event", &["event"]),
    field("timestamp", &["timestamp"]),
    field("order_id", &["properties", "orderId"]),
    field("total", &["properties", "total"]),
    field("shipping", &["properties", "shipping"]),
    field("tax", &["properties", "tax"]),
    field("quantity", &["properties", "quantity"]),
    field("coupon", &["properties", "coupon"]),
    field("currency", &["properties", "currency"]),
    field("gift_wrapped", &["properties", "giftWrapped"]),
    field("note", &["properties", "note"]),
    field("context_locale", &["context", "locale"]),
    field("context_user_agent", &["context", "userAgent"]),
    field("context_library_name", &["context", "library", "name"]),
    field("context_library_version", &["context", "library", "version"]),
    field("context_page_url", &["context", "page", "url"]),
    field("context_page_path", &["context", "page", "path"]),
    field("context_page_referrer", &["context", "page", "referrer"]),
    field("context_campaign_name", &["context", "campaign", "name"]),
    field("context_campaign_source", &["context", "campaign", "source"]),
];

const fn field(column: &'static str, path: &'static [&'static str]) -> Field {
    Field { column, path }
}

/// People, event names and amounts repeat as in a shop; ids do not.
const PEOPLE: u64 = 50_000;
const NAMES: [&str; 4] = [
    "Order Completed",
    "Product Viewed",
    "Cart Viewed",
    "Checkout Started",
];

/// Writes event number `n`, of 1,024 bytes, over what is in `text`.
pub(crate) fn write(n: u64, text: &mut String) {
    text.clear();
    let person = n % PEOPLE;
    let name = usize::try_from(n)
        .ok()
        .and_then(|n| NAMES.get(n % NAMES.len()))
        .unwrap_or(&NAMES[0]);
    // Writing into a string does not fail.
    let _written = write!(
        text,
        concat!(
            r#"{{"type":"track","messageId":"node-next-1795233600120-{n:08x}-7d1e-4a8e-9c55-3f0c2a8e4b10","#,
            r#""anonymousId":"{person:08x}-ceea-467f-a9e0-1d2c3b4a5968","userId":"user-{person:06}","#,
            r#""event":"{name}","properties":{{"orderId":"A-2026-1121-{n:08}","total":{total}.{cents:02},"#,
            r#""shipping":4.9,"tax":{tax},"quantity":{quantity},"coupon":"NOVEMBER","currency":"EUR","giftWrapped":{gift}}},"#,
            r#""context":{{"library":{{"name":"@segment/analytics-node","version":"3.1.0"}},"locale":"de-DE","#,
            r#""userAgent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0 Safari/537.36","#,
            r#""page":{{"url":"https://shop.example/checkout/done?step={step}","path":"/checkout/done","#,
            r#""referrer":"https://www.search.example/q?n={step}"}},"campaign":{{"name":"autumn","source":"mail"}}}},"#,
            r#""timestamp":"2026-11-21T04:{minute:02}:{second:02}.000Z"}}"#,
        ),
        n = n,
        person = person,
        name = name,
        total = 10 + n % 990,
        cents = 1 + n % 98,
        tax = n % 40,
        quantity = 1 + n % 9,
        gift = n.is_multiple_of(7),
        step = n % 1000,
        minute = n / 60 % 60,
        second = n % 60,
    );
    // A note fills it up: texts of people are of any length.
    const NOTE: &str = r#","note":""#;
    let place = text.find(r#"},"context""#).unwrap_or(text.len());
    let fill = SIZE.saturating_sub(text.len() + NOTE.len() + 1);
    let words = "please leave it at the neighbour's door and ring twice, thank you very much indeed ";
    let note: String = words
        .chars()
        .cycle()
        .skip(usize::try_from(n % 83).unwrap_or(0))
        .take(fill)
        .collect();
    text.insert_str(place, &format!("{NOTE}{note}\""));
}

/// Bytes of an event.
pub(crate) const SIZE: usize = 1024;
