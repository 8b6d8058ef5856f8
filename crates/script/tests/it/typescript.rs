//! Functions with types.

use super::*;

#[test]
fn types_are_taken_out_and_places_stay() {
    let code = "typescript:interface Order { price: number; note?: string }
type Context = { attempt: number };
export const config: { onError: 'dead-letter' } = { onError: 'dead-letter' };
const total = <T extends Order>(order: T): number => (order.price as number) * 2;
export default async function (event: Order & { total?: number }, ctx: Context): Promise<Order | null> {
  if (event.note) {
    throw new TypeError(event.note!);
  }
  event.total = total<Order>(event) satisfies number;
  return event;
}";
    let (outcomes, _) = run(
        &open_with(LIMITS, &[code]),
        &[r#"{"price":2}"#, r#"{"price":2,"note":"no"}"#],
    );
    assert_eq!(forwarded(&outcomes[0]), [r#"{"price":2,"total":4}"#]);
    assert_eq!(refused(&outcomes[1]), (FunctionCode::Thrown, "TypeError: no"));
    let fault = outcomes[1].fault.as_ref().expect("checked");
    assert_eq!((fault.line, fault.column), (Some(7), Some(11)));
}

#[test]
fn what_is_no_typescript_or_cannot_be_taken_out_is_refused_with_its_place() {
    for (code, line, column) in [
        ("typescript:export default (event: {) => event;", 1, 25),
        (
            "typescript:const a = 1;\n  enum Kind { One }\nexport default () => Kind.One;",
            2,
            3,
        ),
    ] {
        let (outcomes, _) = run(&open_with(LIMITS, &[code]), &["{}"]);
        assert_eq!(refused(&outcomes[0]).0, FunctionCode::CompileError, "{code}");
        let fault = outcomes[0].fault.as_ref().expect("checked");
        assert_eq!(
            (fault.line, fault.column),
            (Some(line), Some(column)),
            "{fault:?}"
        );
    }
}
