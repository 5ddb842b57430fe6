import SyncCore

extension Catalogue {
  var wire: Hub_Wire_Catalogue {
    get throws(WireError) {
      try check()
      var out = Hub_Wire_Catalogue()
      out.version = version
      out.tables = tables.map(\.wire)
      out.statements = statements.map {
        var out = Hub_Wire_SchemaStatement()
        out.kind = $0.kind
        out.name = $0.name
        out.statement = $0.statement
        out.table = $0.table
        return out
      }
      out.stride = Int64(stride)
      return out
    }
  }

  init(wire: Hub_Wire_Catalogue) throws(WireError) {
    guard wire.tables.count <= Limits.tablesMax, wire.statements.count <= Limits.statementsMax else {
      throw .malformed("a catalogue has too many tables or statements")
    }
    var tables: [CatalogueTable] = []
    tables.reserveCapacity(wire.tables.count)
    for table in wire.tables { tables.append(try CatalogueTable(wire: table)) }
    self.init(
      version: wire.version, tables: tables,
      statements: wire.statements.map {
        SchemaStatement(kind: $0.kind, name: $0.name, statement: $0.statement, table: $0.table)
      },
      stride: try Checks.int(wire.stride, "a stride", from: 1, to: Int64(Int32.max)))
    try check()
  }

  private func check() throws(WireError) {
    try Checks.number(version, "a catalogue's version")
    try Checks.number(Int64(stride), "a stride", from: 1, to: Int64(Int32.max))
    guard tables.count <= Limits.tablesMax, statements.count <= Limits.statementsMax else {
      throw .malformed("a catalogue has too many tables or statements")
    }
    for table in tables { try table.check() }
    for statement in statements {
      try Checks.text(statement.kind, "an object's kind", max: Limits.wordBytesMax)
      try Checks.text(statement.name, "an object's name", max: Limits.objectNameBytesMax)
      try Checks.text(statement.statement, "an object's statement", max: Limits.statementBytesMax)
      try Checks.text(statement.table, "a table's name", max: Limits.tableNameBytesMax, mayBeEmpty: true)
    }
    guard Set(tables.map(\.name)).count == tables.count else {
      throw .malformed("a catalogue has a table twice")
    }
  }
}

extension CatalogueTable {
  fileprivate var wire: Hub_Wire_CatalogueTable {
    var out = Hub_Wire_CatalogueTable()
    out.schemaName = schemaName
    out.relationName = relationName
    out.direction = options.direction
    out.merge = options.merge
    out.onConflict = options.onConflict
    out.onDelete = options.onDelete
    out.counters = options.counters
    if let column = options.originColumn { out.originColumn = column }
    out.keys = options.keys
    out.foreignWrites = options.foreignWrites
    out.priority = Int64(options.priority)
    return out
  }

  fileprivate init(wire: Hub_Wire_CatalogueTable) throws(WireError) {
    var options = TrackingOptions()
    options.direction = wire.direction
    options.merge = wire.merge
    options.onConflict = wire.onConflict
    options.onDelete = wire.onDelete
    options.counters = wire.counters
    options.originColumn = wire.hasOriginColumn ? wire.originColumn : nil
    options.keys = wire.keys
    options.foreignWrites = wire.foreignWrites
    options.priority = try Checks.int(
      wire.priority, "a priority", from: Int64(Int32.min), to: Int64(Int32.max))
    self.init(schemaName: wire.schemaName, relationName: wire.relationName, options: options)
  }

  /// A word that is not known is refused: to take it for the default would let offices differ in silence.
  fileprivate func check() throws(WireError) {
    try Checks.text(schemaName, "a schema's name", max: Limits.columnNameBytesMax)
    try Checks.text(relationName, "a table's name", max: Limits.columnNameBytesMax)
    try Checks.word(options.direction, "a table's direction", ["both", "down", "up"])
    try Checks.word(options.merge, "a table's merge", ["row", "columns"])
    try Checks.word(options.onDelete, "a table's on-delete", ["update", "delete"])
    try Checks.word(options.keys, "a table's keys", ["stride", "as-is"])
    try Checks.word(options.foreignWrites, "a table's foreign-writes", ["refuse", "ignore"])
    if options.onConflict.hasPrefix("function:") {
      try Checks.text(options.onConflict, "a table's on-conflict", max: 9 + Limits.tableNameBytesMax)
    } else {
      try Checks.word(options.onConflict, "a table's on-conflict", ["latest", "head", "branch"])
    }
    guard options.counters.count <= Limits.columnsMax else {
      throw .malformed("a table has too many counters")
    }
    for column in options.counters {
      try Checks.text(column, "a column's name", max: Limits.columnNameBytesMax)
    }
    if let column = options.originColumn {
      try Checks.text(column, "a column's name", max: Limits.columnNameBytesMax)
    }
    try Checks.number(
      Int64(options.priority), "a priority", from: Int64(Int32.min), to: Int64(Int32.max))
  }
}
