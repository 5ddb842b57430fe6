/// How a table is tracked; the same words in the database, on the wire and on the command line.
package struct TrackingOptions: Sendable, Hashable {
  package var direction = "both"
  package var merge = "row"
  package var onConflict = "latest"
  package var onDelete = "update"
  package var counters: [String] = []
  package var originColumn: String?
  package var keys = "stride"
  package var foreignWrites = "refuse"
  package var priority = 0

  package init() {}

  /// The name of the function that settles conflicts, as it was given.
  package var conflictFunction: String? {
    onConflict.hasPrefix("function:") ? String(onConflict.dropFirst("function:".count)) : nil
  }
}

/// A tracked table as head defines it.
package struct CatalogueTable: Sendable, Hashable {
  package var schemaName: String
  package var relationName: String
  package var options: TrackingOptions

  package init(schemaName: String, relationName: String, options: TrackingOptions) {
    self.schemaName = schemaName
    self.relationName = relationName
    self.options = options
  }

  package var name: String { "\(schemaName).\(relationName)" }
}

/// A statement that makes one object in an empty database.
package struct SchemaStatement: Sendable, Hashable {
  package var kind: String
  package var name: String
  package var statement: String
  /// The tracked table that needs it.
  package var table: String

  package init(kind: String, name: String, statement: String, table: String) {
    self.kind = kind
    self.name = name
    self.statement = statement
    self.table = table
  }
}

/// What head tracks, and how to make it.
package struct Catalogue: Sendable, Hashable {
  package var version: Int64
  package var tables: [CatalogueTable]
  package var statements: [SchemaStatement]
  /// Keys from a sequence step by this.
  package var stride: Int

  package init(version: Int64, tables: [CatalogueTable], statements: [SchemaStatement], stride: Int) {
    self.version = version
    self.tables = tables
    self.statements = statements
    self.stride = stride
  }
}
