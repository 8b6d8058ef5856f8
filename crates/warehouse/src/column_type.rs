//! The types of columns, as ClickHouse spells them.

use std::fmt;

/// A type without a wrapper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scalar {
    /// `Bool`
    Bool,
    /// `UInt8`, `UInt16`, `UInt32` or `UInt64`, by its number of bits.
    UInt(u8),
    /// `Int8`, `Int16`, `Int32` or `Int64`, by its number of bits.
    Int(u8),
    /// `Float32`
    Float32,
    /// `Float64`
    Float64,
    /// `DateTime64(3)`, with whatever time zone it is displayed in.
    DateTime64,
    /// `String`
    String,
}

/// The type of a column.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// The type itself; what is missing becomes 0, `false` or an empty string.
    Plain(Scalar),
    /// `Nullable(T)`
    Nullable(Scalar),
    /// `LowCardinality(String)`
    LowCardinality,
    /// `LowCardinality(Nullable(String))`
    LowCardinalityNullable,
    /// `Array(T)`
    Array(Scalar),
    /// A type that somebody gave the column and that this build cannot encode. Its values are refused.
    Other,
}

impl Scalar {
    /// The bytes that one value takes, for all but strings.
    pub(crate) const fn width(self) -> usize {
        match self {
            Self::Bool => 1,
            Self::UInt(bits) | Self::Int(bits) => bits as usize / 8,
            Self::Float32 => 4,
            Self::Float64 | Self::DateTime64 => 8,
            Self::String => 0,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "Bool" => Self::Bool,
            "UInt8" => Self::UInt(8),
            "UInt16" => Self::UInt(16),
            "UInt32" => Self::UInt(32),
            "UInt64" => Self::UInt(64),
            "Int8" => Self::Int(8),
            "Int16" => Self::Int(16),
            "Int32" => Self::Int(32),
            "Int64" => Self::Int(64),
            "Float32" => Self::Float32,
            "Float64" => Self::Float64,
            "String" => Self::String,
            "DateTime64(3)" => Self::DateTime64,
            _ if text.starts_with("DateTime64(3, '") && text.ends_with("')") => Self::DateTime64,
            _ => return None,
        })
    }
}

impl ColumnType {
    /// Reads a type as `system.columns` shows it; what is not known is [`ColumnType::Other`].
    pub fn parse(text: &str) -> Self {
        let inside = |name: &str| text.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')');
        if let Some(inner) = inside("Nullable") {
            return Scalar::parse(inner).map_or(Self::Other, Self::Nullable);
        }
        if let Some(inner) = inside("Array") {
            return Scalar::parse(inner).map_or(Self::Other, Self::Array);
        }
        match inside("LowCardinality") {
            Some("String") => Self::LowCardinality,
            Some("Nullable(String)") => Self::LowCardinalityNullable,
            Some(_) => Self::Other,
            None => Scalar::parse(text).map_or(Self::Other, Self::Plain),
        }
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("Bool"),
            Self::UInt(bits) => write!(f, "UInt{bits}"),
            Self::Int(bits) => write!(f, "Int{bits}"),
            Self::Float32 => f.write_str("Float32"),
            Self::Float64 => f.write_str("Float64"),
            Self::DateTime64 => f.write_str("DateTime64(3, 'UTC')"),
            Self::String => f.write_str("String"),
        }
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(scalar) => scalar.fmt(f),
            Self::Nullable(scalar) => write!(f, "Nullable({scalar})"),
            Self::LowCardinality => f.write_str("LowCardinality(String)"),
            Self::LowCardinalityNullable => f.write_str("LowCardinality(Nullable(String))"),
            Self::Array(scalar) => write!(f, "Array({scalar})"),
            Self::Other => f.write_str("a type that cannot be encoded"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_read_as_they_are_written() {
        for text in [
            "Bool",
            "UInt8",
            "Int64",
            "Float64",
            "String",
            "DateTime64(3, 'UTC')",
            "Nullable(Float64)",
            "Nullable(DateTime64(3, 'UTC'))",
            "LowCardinality(String)",
            "LowCardinality(Nullable(String))",
            "Array(String)",
            "Array(Bool)",
        ] {
            let parsed = ColumnType::parse(text);
            assert_ne!(parsed, ColumnType::Other, "{text}");
            assert_eq!(parsed.to_string(), text);
        }
        assert_eq!(
            ColumnType::parse("DateTime64(3)"),
            ColumnType::Plain(Scalar::DateTime64)
        );
    }

    #[test]
    fn types_that_would_need_a_conversion_are_not_taken_for_others() {
        for text in [
            "DateTime64(6, 'UTC')",
            "DateTime",
            "Decimal(18, 2)",
            "UUID",
            "FixedString(3)",
            "Array(Nullable(String))",
            "Array(Array(String))",
            "LowCardinality(FixedString(2))",
            "Enum8('a' = 1)",
            "Int128",
            "JSON",
            "",
        ] {
            assert_eq!(ColumnType::parse(text), ColumnType::Other, "{text}");
        }
    }
}
