//! Which tags there are, read from the database's catalogue rather than from code.

use std::sync::Arc;

use uuid::Uuid;

use crate::browse::holders;
use crate::error::Result;
use crate::pool::Pool;
use crate::queries;
pub use crate::tag::Tag;
use crate::value::Param;

/// The tags in the current schema, by name.
pub async fn tags(pool: &Arc<Pool>) -> Result<Vec<Tag>> {
    let mut checkout = pool.checkout().await?;
    let rows = checkout.conn().query(queries::TAG_REFLECT.sql, &[]).await?;
    let mut tags: Vec<Tag> = Vec::new();
    for row in rows {
        let table: String = row.get("table_name");
        let field: Option<(String, String)> = row
            .get::<_, Option<String>>("field")
            .map(|field| (field, row.get("field_type")));
        let required = row.get::<_, Option<bool>>("required").unwrap_or(false);
        let required = field
            .iter()
            .filter(|_| required)
            .map(|field| field.0.clone());
        match tags.last_mut() {
            Some(tag) if tag.table == table => {
                tag.required.extend(required);
                tag.fields.extend(field);
            }
            _ => tags.push(Tag {
                required: required.collect(),
                name: table.strip_prefix("machine_").unwrap_or(&table).to_owned(),
                table,
                fields: field.into_iter().collect(),
            }),
        }
    }
    Ok(tags)
}

/// Which tags these machines have: pairs of a machine and a tag's name, by tag.
pub async fn tags_of(pool: &Arc<Pool>, machines: &[Uuid]) -> Result<Vec<(Uuid, String)>> {
    let tags = tags(pool).await?;
    if tags.is_empty() || machines.is_empty() {
        return Ok(Vec::new());
    }
    let machines = Param::Array(
        machines
            .iter()
            .map(|id| Param::Uuid(id.into_bytes()))
            .collect(),
    );
    let mut checkout = pool.checkout().await?;
    let rows = checkout.conn().query(&holders(&tags), &[machines]).await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let position: i32 = row.get("tag");
            let name = usize::try_from(position)
                .ok()
                .and_then(|position| tags.get(position))
                .map(|tag| tag.name.clone());
            (row.get("machine_id"), name.unwrap_or_default())
        })
        .collect())
}
