use super::*;
use crate::column_type::ColumnType;

fn column(type_name: &str, cells: &[Cell<'_>]) -> Column {
    let mut column = Column::new(&ColumnType::parse(type_name)).expect("a type that can be encoded");
    for cell in cells {
        column.push(cell).expect("a cell of the column's form");
    }
    column
}

fn block(name: &str, type_name: &str, cells: &[Cell<'_>]) -> Vec<u8> {
    let column = column(type_name, cells);
    let mut out = Vec::new();
    write_block(
        &mut out,
        column.len(),
        &[NamedColumn {
            name,
            type_name,
            column: &column,
        }],
    );
    out
}

#[test]
fn a_block_of_plain_values_has_these_bytes() {
    let bytes = block("n", "UInt16", &[Cell::Bits(1), Cell::Missing, Cell::Bits(0xabcd)]);
    assert_eq!(bytes, b"\x01\x03\x01n\x06UInt16\x01\x00\x00\x00\xcd\xab");
}

#[test]
fn a_null_is_a_one_in_front_of_the_values() {
    let bytes = block(
        "b",
        "Nullable(Bool)",
        &[Cell::Bits(1), Cell::Missing, Cell::Bits(0)],
    );
    assert_eq!(bytes, b"\x01\x03\x01b\x0eNullable(Bool)\x00\x01\x00\x01\x00\x00");
}

#[test]
fn strings_have_their_length_in_front() {
    let long = "x".repeat(200);
    let bytes = block(
        "s",
        "String",
        &[
            Cell::Text("é".into()),
            Cell::Missing,
            Cell::Text(long.clone().into()),
        ],
    );
    let mut expected = b"\x01\x03\x01s\x06String\x02\xc3\xa9\x00\xc8\x01".to_vec();
    expected.extend_from_slice(long.as_bytes());
    assert_eq!(bytes, expected);
}

#[test]
fn a_dictionary_stands_in_front_of_its_indexes() {
    let cells = [
        Cell::Text("a".into()),
        Cell::Missing,
        Cell::Text("b".into()),
        Cell::Text("a".into()),
    ];
    let bytes = block("l", "LowCardinality(String)", &cells);
    let mut expected = b"\x01\x04\x01l\x16LowCardinality(String)".to_vec();
    expected.extend_from_slice(&1_u64.to_le_bytes());
    expected.extend_from_slice(&0x600_u64.to_le_bytes());
    expected.extend_from_slice(&3_u64.to_le_bytes());
    expected.extend_from_slice(b"\x00\x01a\x01b");
    expected.extend_from_slice(&4_u64.to_le_bytes());
    expected.extend_from_slice(b"\x01\x00\x02\x01");
    assert_eq!(bytes, expected);
}

#[test]
fn an_array_is_its_ends_and_then_its_items() {
    let cells = [
        Cell::List(vec![Cell::Text("a".into()), Cell::Text("".into())]),
        Cell::Missing,
        Cell::List(vec![Cell::Text("b".into())]),
    ];
    let bytes = block("a", "Array(String)", &cells);
    let mut expected = b"\x01\x03\x01a\x0dArray(String)".to_vec();
    for end in [2_u64, 2, 3] {
        expected.extend_from_slice(&end.to_le_bytes());
    }
    expected.extend_from_slice(b"\x01a\x00\x01b");
    assert_eq!(bytes, expected);
}

#[test]
fn indexes_grow_with_the_dictionary() {
    for (keys, width) in [(255_usize, 1), (256, 2), (65_535, 2), (65_536, 4)] {
        let cells: Vec<_> = (0..keys).map(|key| Cell::Text(key.to_string().into())).collect();
        let column = column("LowCardinality(String)", &cells);
        let mut out = Vec::new();
        column.write(&mut out);
        let keys_size: usize = 1 + (0..keys).map(|key| key.to_string().len() + 1).sum::<usize>();
        assert_eq!(out.len(), 32 + keys_size + keys * width, "{keys} keys");
        assert_eq!(out.len(), column.byte_size());
    }
}

#[test]
fn a_cell_of_another_form_changes_nothing() {
    let mut array = column("Array(Float64)", &[Cell::List(vec![Cell::Bits(1)])]);
    let before = array.byte_size();
    let mixed = Cell::List(vec![Cell::Bits(2), Cell::Text("x".into())]);
    for cell in [
        mixed,
        Cell::Text("x".into()),
        Cell::Bits(1),
        Cell::List(vec![Cell::Missing]),
    ] {
        assert_eq!(array.push(&cell), Err(WrongCell));
        assert_eq!((array.len(), array.byte_size()), (1, before));
    }
    let mut text = column("String", &[]);
    assert_eq!(text.push(&Cell::Bits(1)), Err(WrongCell));
}

#[test]
fn a_column_is_padded_up_to_the_others() {
    for type_name in [
        "UInt8",
        "Nullable(Float64)",
        "String",
        "Nullable(String)",
        "LowCardinality(String)",
        "LowCardinality(Nullable(String))",
        "Array(Bool)",
    ] {
        let mut padded = column(type_name, &[]);
        padded.pad_to(3);
        let pushed = column(type_name, &[Cell::Missing, Cell::Missing, Cell::Missing]);
        let (mut left, mut right) = (Vec::new(), Vec::new());
        padded.write(&mut left);
        pushed.write(&mut right);
        assert_eq!(left, right, "{type_name}");
        assert_eq!(left.len(), padded.byte_size(), "{type_name}");
        padded.pad_to(2);
        assert_eq!(padded.len(), 3);
    }
}
