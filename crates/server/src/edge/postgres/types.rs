//! Which PostgreSQL type a column or a parameter has.

use arrow::datatypes::{DataType, TimeUnit};
use pgwire::api::Type;
use query::ResultColumn;

/// The types values are sent and taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalar {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
    Text,
    Bytea,
    Date,
    Timestamp,
    TimestampTz,
    Json,
}

/// A column's type: a scalar, or an array of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PgType {
    pub scalar: Scalar,
    pub array: bool,
}

impl PgType {
    pub const TEXT: Self = Self { scalar: Scalar::Text, array: false };

    /// The type a result's column is sent as. What has no counterpart is text; a struct or a list of lists is JSON.
    pub fn of_column(column: &ResultColumn) -> Self {
        if column.druid_type.eq_ignore_ascii_case("COMPLEX<json>") {
            return Self { scalar: Scalar::Json, array: false };
        }
        Self::of(&column.arrow)
    }

    pub fn of(arrow: &DataType) -> Self {
        match arrow {
            DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
                match scalar_of(field.data_type()) {
                    Some(scalar) => Self { scalar, array: true },
                    None => Self { scalar: Scalar::Json, array: false },
                }
            }
            DataType::Struct(_) | DataType::Map(_, _) => Self { scalar: Scalar::Json, array: false },
            DataType::Dictionary(_, values) => Self::of(values),
            other => Self { scalar: scalar_of(other).unwrap_or(Scalar::Text), array: false },
        }
    }

    /// From the object id a client declared. `None`: it left the type open (0, or `unknown`).
    pub fn from_oid(oid: u32) -> Option<Self> {
        let known = Type::from_oid(oid)?;
        let scalar = |scalar| Some(Self { scalar, array: false });
        let array = |scalar| Some(Self { scalar, array: true });
        match known {
            Type::UNKNOWN => None,
            Type::BOOL => scalar(Scalar::Bool),
            Type::INT2 => scalar(Scalar::Int2),
            Type::INT4 | Type::OID => scalar(Scalar::Int4),
            Type::INT8 => scalar(Scalar::Int8),
            Type::FLOAT4 => scalar(Scalar::Float4),
            Type::FLOAT8 => scalar(Scalar::Float8),
            Type::NUMERIC => scalar(Scalar::Numeric),
            Type::BYTEA => scalar(Scalar::Bytea),
            Type::DATE => scalar(Scalar::Date),
            Type::TIMESTAMP => scalar(Scalar::Timestamp),
            Type::TIMESTAMPTZ => scalar(Scalar::TimestampTz),
            Type::JSON => scalar(Scalar::Json),
            Type::BOOL_ARRAY => array(Scalar::Bool),
            Type::INT2_ARRAY => array(Scalar::Int2),
            Type::INT4_ARRAY | Type::OID_ARRAY => array(Scalar::Int4),
            Type::INT8_ARRAY => array(Scalar::Int8),
            Type::FLOAT4_ARRAY => array(Scalar::Float4),
            Type::FLOAT8_ARRAY => array(Scalar::Float8),
            Type::NUMERIC_ARRAY => array(Scalar::Numeric),
            Type::DATE_ARRAY => array(Scalar::Date),
            Type::TIMESTAMP_ARRAY => array(Scalar::Timestamp),
            Type::TIMESTAMPTZ_ARRAY => array(Scalar::TimestampTz),
            Type::TEXT_ARRAY | Type::VARCHAR_ARRAY | Type::NAME_ARRAY | Type::BPCHAR_ARRAY => array(Scalar::Text),
            _ => scalar(Scalar::Text),
        }
    }

    /// The object id that says so to a client.
    pub fn oid(self) -> u32 {
        let known = if self.array { self.scalar.array_type() } else { self.scalar.element_type() };
        known.oid()
    }

    /// Bytes of a value, -1 when they vary: what a row description says.
    pub fn size(self) -> i16 {
        if self.array {
            return -1;
        }
        match self.scalar {
            Scalar::Bool => 1,
            Scalar::Int2 => 2,
            Scalar::Int4 | Scalar::Float4 | Scalar::Date => 4,
            Scalar::Int8 | Scalar::Float8 | Scalar::Timestamp | Scalar::TimestampTz => 8,
            Scalar::Numeric | Scalar::Text | Scalar::Bytea | Scalar::Json => -1,
        }
    }

    /// The type to plan a parameter with.
    pub fn arrow(self) -> DataType {
        let scalar = match self.scalar {
            Scalar::Bool => DataType::Boolean,
            Scalar::Int2 | Scalar::Int4 | Scalar::Int8 => DataType::Int64,
            Scalar::Float4 | Scalar::Float8 | Scalar::Numeric => DataType::Float64,
            Scalar::Text | Scalar::Bytea | Scalar::Json => DataType::Utf8,
            Scalar::Date | Scalar::Timestamp | Scalar::TimestampTz => DataType::Timestamp(TimeUnit::Millisecond, None),
        };
        if self.array { DataType::new_list(scalar, true) } else { scalar }
    }

    /// The SQL name of a parameter of this type, as the query room reads it.
    pub fn sql_name(self) -> &'static str {
        if self.array {
            return "ARRAY";
        }
        match self.scalar {
            Scalar::Bool => "BOOLEAN",
            Scalar::Int2 | Scalar::Int4 | Scalar::Int8 => "BIGINT",
            Scalar::Float4 | Scalar::Float8 | Scalar::Numeric => "DOUBLE",
            Scalar::Text | Scalar::Bytea | Scalar::Json => "VARCHAR",
            Scalar::Date => "DATE",
            Scalar::Timestamp | Scalar::TimestampTz => "TIMESTAMP",
        }
    }
}

impl Scalar {
    pub fn element_type(self) -> Type {
        match self {
            Self::Bool => Type::BOOL,
            Self::Int2 => Type::INT2,
            Self::Int4 => Type::INT4,
            Self::Int8 => Type::INT8,
            Self::Float4 => Type::FLOAT4,
            Self::Float8 => Type::FLOAT8,
            Self::Numeric => Type::NUMERIC,
            Self::Text => Type::TEXT,
            Self::Bytea => Type::BYTEA,
            Self::Date => Type::DATE,
            Self::Timestamp => Type::TIMESTAMP,
            Self::TimestampTz => Type::TIMESTAMPTZ,
            Self::Json => Type::JSON,
        }
    }

    fn array_type(self) -> Type {
        match self {
            Self::Bool => Type::BOOL_ARRAY,
            Self::Int2 => Type::INT2_ARRAY,
            Self::Int4 => Type::INT4_ARRAY,
            Self::Int8 => Type::INT8_ARRAY,
            Self::Float4 => Type::FLOAT4_ARRAY,
            Self::Float8 => Type::FLOAT8_ARRAY,
            Self::Numeric => Type::NUMERIC_ARRAY,
            Self::Text => Type::TEXT_ARRAY,
            Self::Bytea => Type::BYTEA_ARRAY,
            Self::Date => Type::DATE_ARRAY,
            Self::Timestamp => Type::TIMESTAMP_ARRAY,
            Self::TimestampTz => Type::TIMESTAMPTZ_ARRAY,
            Self::Json => Type::JSON_ARRAY,
        }
    }
}

fn scalar_of(arrow: &DataType) -> Option<Scalar> {
    Some(match arrow {
        DataType::Boolean => Scalar::Bool,
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => Scalar::Int2,
        DataType::UInt16 | DataType::Int32 => Scalar::Int4,
        DataType::UInt32 | DataType::Int64 | DataType::UInt64 => Scalar::Int8,
        DataType::Float16 | DataType::Float32 => Scalar::Float4,
        DataType::Float64 => Scalar::Float8,
        DataType::Decimal32(_, _)
        | DataType::Decimal64(_, _)
        | DataType::Decimal128(_, _)
        | DataType::Decimal256(_, _) => Scalar::Numeric,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => Scalar::Text,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Scalar::Bytea,
        DataType::Date32 | DataType::Date64 => Scalar::Date,
        DataType::Timestamp(_, None) => Scalar::Timestamp,
        DataType::Timestamp(_, Some(_)) => Scalar::TimestampTz,
        DataType::Dictionary(_, values) => return scalar_of(values),
        DataType::List(_)
        | DataType::LargeList(_)
        | DataType::FixedSizeList(_, _)
        | DataType::Struct(_)
        | DataType::Map(_, _) => return None,
        _ => Scalar::Text,
    })
}
