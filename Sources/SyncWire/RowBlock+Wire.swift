import FoundationEssentials
import SyncCore

extension [RowBlock] {
  var wire: [Hub_Wire_TableRows] {
    get throws(WireError) {
      try RowChecks.counts(self)
      var out: [Hub_Wire_TableRows] = []
      out.reserveCapacity(count)
      for block in self { out.append(try block.wire) }
      return out
    }
  }

  init(wire: [Hub_Wire_TableRows]) throws(WireError) {
    self = []
    reserveCapacity(wire.count)
    for table in wire { append(try RowBlock(wire: table)) }
    try RowChecks.counts(self)
  }
}

extension RowBlock {
  var wire: Hub_Wire_TableRows {
    get throws(WireError) {
      try RowChecks.check(self)
      var out = Hub_Wire_TableRows()
      out.table = table
      out.columns = columnNames
      out.keyCount = UInt32(keyCount)
      out.actors = actors
      out.counters = counters
      out.stamps = stamps
      out.alive = Data(Bits.packed(alive))
      out.vectors = vectors.sorted { $0.key < $1.key }.map { row, vector in
        var out = Hub_Wire_Vector()
        out.row = UInt32(row)
        out.actors = vector.dots.map(\.actor.rawValue)
        out.counters = vector.dots.map(\.n)
        return out
      }
      out.values = columns.map {
        var out = Hub_Wire_ColumnValues()
        out.blob = Data($0.blob)
        out.lengths = $0.lengths
        return out
      }
      if !contributions.isEmpty { out.contributions = Hub_Wire_Contributions(contributions) }
      if !columnVersions.isEmpty { out.columnVersions = Hub_Wire_ColumnVersions(columnVersions) }
      return out
    }
  }

  init(wire: Hub_Wire_TableRows) throws(WireError) {
    guard let keyCount = Int(exactly: wire.keyCount) else {
      throw .malformed("a table's key has too many columns")
    }
    self.init(table: wire.table, columnNames: wire.columns, keyCount: keyCount)
    actors = wire.actors
    counters = wire.counters
    stamps = wire.stamps
    alive = try Bits.unpacked([UInt8](wire.alive), count: actors.count)
    columns = wire.values.map { ColumnBytes(blob: [UInt8]($0.blob), lengths: $0.lengths) }
    vectors.reserveCapacity(wire.vectors.count)
    var next: UInt32 = 0
    for entry in wire.vectors {
      guard entry.row >= next, entry.row < UInt32.max, let row = Int(exactly: entry.row) else {
        throw .malformed("vectors are not in the order of their rows")
      }
      next = entry.row + 1
      vectors[row] = try VersionVector(wire: entry)
    }
    if wire.hasContributions { contributions = try wire.contributions.byRow }
    if wire.hasColumnVersions { columnVersions = try wire.columnVersions.byRow }
    try RowChecks.check(self)
  }
}

extension VersionVector {
  init(wire: Hub_Wire_Vector) throws(WireError) {
    guard wire.actors.count == wire.counters.count, wire.actors.count <= Limits.messageVectorEntriesMax else {
      throw .malformed("a vector has too many entries, or not as many actors as counters")
    }
    guard zip(wire.actors, wire.actors.dropFirst()).allSatisfy(<) else {
      throw .malformed("a vector's actors do not grow")
    }
    self.init(zip(wire.actors, wire.counters).lazy.map { Dot(actor: ActorID(rawValue: $0), n: $1) })
  }
}

/// Eight booleans a byte, lowest bit first; spare bits of the last byte are 0.
enum Bits {
  static func packed(_ flags: [Bool]) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: flags.count / 8 + (flags.count % 8 == 0 ? 0 : 1))
    for (i, flag) in flags.enumerated() where flag { bytes[i / 8] |= 1 << UInt8(i % 8) }
    return bytes
  }

  static func unpacked(_ bytes: [UInt8], count: Int) throws(WireError) -> [Bool] {
    guard bytes.count == count / 8 + (count % 8 == 0 ? 0 : 1) else {
      throw .malformed("there are not as many alive bits as rows")
    }
    if let last = bytes.last, count % 8 != 0, last >> UInt8(count % 8) != 0 {
      throw .malformed("there are more alive bits than rows")
    }
    return (0..<count).map { bytes[$0 / 8] & (1 << UInt8($0 % 8)) != 0 }
  }
}
