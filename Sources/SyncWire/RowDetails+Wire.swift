import FoundationEssentials
import SyncCore

extension Hub_Wire_Contributions {
  init(_ contributions: [Int: [RowContribution]]) {
    self.init()
    var values = ColumnBytes()
    for (row, entries) in contributions.sorted(by: { $0.key < $1.key }) {
      for entry in entries {
        rows.append(UInt32(row))
        columns.append(UInt32(entry.column))
        actors.append(entry.dot.actor.rawValue)
        counters.append(entry.dot.n)
        values.blob += entry.sum
        values.lengths.append(Int32(truncatingIfNeeded: entry.sum.count))
      }
    }
    sums.blob = Data(values.blob)
    sums.lengths = values.lengths
  }

  var byRow: [Int: [RowContribution]] {
    get throws(WireError) {
      let count = rows.count
      guard columns.count == count, actors.count == count, counters.count == count, sums.lengths.count == count,
        zip(rows, rows.dropFirst()).allSatisfy(<=)
      else { throw .malformed("contributions are incomplete") }
      let blob = [UInt8](sums.blob)
      var out: [Int: [RowContribution]] = [:]
      var position = 0
      for i in 0..<count {
        let length = Int(sums.lengths[i])
        guard length >= 0, length <= blob.count - position else { throw .malformed("contributions are incomplete") }
        out[Int(rows[i]), default: []].append(
          RowContribution(
            column: Int(columns[i]), dot: Dot(actor: ActorID(rawValue: actors[i]), n: counters[i]),
            sum: Array(blob[position..<position + length])))
        position += length
      }
      guard position == blob.count else { throw .malformed("contributions are incomplete") }
      return out
    }
  }
}

extension Hub_Wire_ColumnVersions {
  init(_ versions: [Int: [ColumnVersion]]) {
    self.init()
    for (row, entries) in versions.sorted(by: { $0.key < $1.key }) {
      for entry in entries {
        rows.append(UInt32(row))
        columns.append(UInt32(entry.column))
        actors.append(entry.dot.actor.rawValue)
        counters.append(entry.dot.n)
        stamps.append(entry.stamp)
      }
    }
  }

  var byRow: [Int: [ColumnVersion]] {
    get throws(WireError) {
      let count = rows.count
      guard columns.count == count, actors.count == count, counters.count == count, stamps.count == count,
        zip(rows, rows.dropFirst()).allSatisfy(<=)
      else { throw .malformed("columns' versions are incomplete") }
      var out: [Int: [ColumnVersion]] = [:]
      for i in 0..<count {
        out[Int(rows[i]), default: []].append(
          ColumnVersion(
            column: Int(columns[i]), dot: Dot(actor: ActorID(rawValue: actors[i]), n: counters[i]), stamp: stamps[i]))
      }
      return out
    }
  }
}
