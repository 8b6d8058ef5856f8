//! The functions and the events that are measured.

use anyhow::{Result, ensure};

use crate::ways::{BATCH, Rotor};

/// A function, as every engine takes it: an expression of an event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) code: &'static str,
}

/// Sets one property.
pub(crate) const TINY: Function = Function {
    name: "tiny",
    code: "(event) => { event.properties.checked = true; return event; }",
};

/// The same as an async function, which waits for nothing.
pub(crate) const ASYNC: Function = Function {
    name: "async",
    code: "async (event) => { event.properties.checked = true; return event; }",
};

/// What integrators do: lists, a query string, patterns, texts.
pub(crate) const MEDIUM: Function = Function {
    name: "medium",
    code: r#"(event) => {
  const properties = event.properties;
  const items = [];
  for (let i = 0; i < 10; i++) {
    items.push({ sku: `SKU-${i}-${properties.orderId}`, price: (i * 7.5) % 40, quantity: i % 3 });
  }
  const bought = items.filter((item) => item.quantity > 0);
  properties.items = bought.length;
  properties.itemsTotal = bought.reduce((sum, item) => sum + item.price * item.quantity, 0);
  const query = event.context.page.url.split("?")[1] ?? "";
  const parameters = {};
  for (const pair of query.split("&")) {
    const [name, value] = pair.split("=");
    if (name.startsWith("utm_")) parameters[name.slice(4)] = decodeURIComponent(value ?? "");
  }
  event.context.campaign = { ...event.context.campaign, ...parameters };
  const path = event.context.page.path.toLowerCase().replace(/\/+$/, "");
  event.context.page.section = /^\/([a-z-]+)/.exec(path)?.[1] ?? "home";
  if (typeof properties.email === "string" && /^[^@\s]+@[^@\s]+\.[a-z]+$/i.test(properties.email)) {
    properties.emailDomain = properties.email.split("@")[1].toLowerCase();
    delete properties.email;
  }
  event.event = event.event.trim().replace(/\s+/g, " ");
  return event;
}"#,
};

/// How many events differ.
const DISTINCT: usize = BATCH;

/// Orders of 1 KB that differ in ids, amounts and addresses, with nothing in them that an engine writes otherwise
/// than it read: what that costs is the rotor's own affair and no other way does it.
pub(crate) fn events() -> Result<Vec<String>> {
    let mut texts = Vec::with_capacity(DISTINCT);
    for n in 0..DISTINCT {
        let start = format!(
            concat!(
                r#"{{"type":"track","messageId":"node-next-1795233600120-{n:08x}-7d1e-4a8e-9c55-3f0c2a8e4b10","#,
                r#""anonymousId":"{n:08x}-ceea-467f-a9e0-1d2c3b4a5968","userId":"user-{n:06}","#,
                r#""event":"Order  Completed","properties":{{"orderId":"A-2026-1121-{n:06}","total":{total},"#,
                r#""shipping":4.9,"tax":20.75,"coupon":"NOVEMBER","currency":"EUR","giftWrapped":false,"#,
                r#""email":"someone.{n}@shop.example","cart":{{"id":"c-{n}","itemCount":3}},"#,
                r#""products":[{{"productId":"507f1f77bcf8","sku":"45790-32","name":"Monopoly","price":19,"quantity":1}},"#,
                r#"{{"productId":"505bd76785eb","sku":"46493-32","name":"Uno","price":3.5,"quantity":2}}]}},"#,
                r#""context":{{"library":{{"name":"@segment/analytics-node","version":"3.1.0"}},"locale":"de-DE","#,
                r#""page":{{"url":"https://shop.example/Checkout/done/?utm_source=mail&utm_medium=autumn&x={n}","#,
                r#""path":"/Checkout/done/","title":"Thank you"}},"campaign":{{"name":"autumn"}}}},"#,
                r#""timestamp":"2026-11-21T04:00:00.000Z","note":""#,
            ),
            n = n,
            total = 100 + n % 800,
        );
        let fill = 1024_usize.saturating_sub(start.len() + 2);
        texts.push(format!("{start}{}\"}}", "x".repeat(fill)));
    }
    ensure!(
        texts.iter().all(|text| text.len() == 1024),
        "an event is not of 1,024 bytes"
    );
    Ok(texts)
}

/// Checks that the ways do the same work: the rotor gives for each event what the bare engine gives.
pub(crate) fn check(
    runtime: &tokio::runtime::Runtime,
    rotor: &Rotor,
    function: Function,
    texts: &[String],
) -> Result<()> {
    let plain = crate::ways::bare(function, texts)?;
    let ours = runtime.block_on(rotor.texts(function))?;
    ensure!(
        plain == format!("[{}]", ours.join(",")),
        "{}: the rotor and the bare engine give different events",
        function.name
    );
    Ok(())
}
