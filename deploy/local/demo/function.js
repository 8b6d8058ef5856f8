// The sample function of `./dev demo`: adds a total to orders and says that it was here.
export default function (event) {
  if (event.type === "track" && event.properties) {
    const { price, quantity } = event.properties;
    if (typeof price === "number" && typeof quantity === "number") {
      event.properties.total = Math.round(price * quantity * 100) / 100;
    }
    event.properties.enriched_by = "demo function";
  }
  return event;
}
