"""Updates and deletes of the tests, for an engine that has neither: the table is written anew without or with them."""

from __future__ import annotations

import sqlglot
from sqlglot import exp

from include.warehouse.engine import Warehouse


def change(warehouse: Warehouse, sql: str, **params: object) -> None:
    """Run a statement; on Spark an `update` or `delete` becomes a rebuild of its table."""
    tree = sqlglot.parse_one(sql.replace(":", "$"), read="duckdb")
    if warehouse.dialect != "spark" or not isinstance(tree, exp.Update | exp.Delete):
        warehouse.execute(sql, **params)
        return
    table = tree.this.sql(dialect="duckdb")
    where = tree.args.get("where")
    chosen: exp.Expr = exp.func("coalesce", where.this, exp.false()) if where is not None else exp.true()
    if isinstance(tree, exp.Delete):
        query: exp.Expr = exp.select("*").from_(table).where(exp.not_(chosen))
    else:
        new = {assignment.this.name: assignment.expression for assignment in tree.expressions}
        columns = warehouse.columns(table) or {}
        assert set(new) <= set(columns)
        query = exp.select(
            *(
                exp.alias_(
                    exp.cast(exp.Case().when(chosen.copy(), new[name].copy()).else_(exp.column(name)), kind)
                    if name in new
                    else exp.column(name),
                    name,
                )
                for name, kind in columns.items()
            )
        ).from_(table)
    warehouse.execute(f"create table {table}__changed as {query.sql(dialect='duckdb').replace('$', ':')}", **params)
    warehouse.execute(f"drop table {table}")
    with warehouse.session() as session:
        session.exec_driver_sql(f"alter table {table}__changed rename to {table}")
