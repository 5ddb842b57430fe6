import SyncCore

/// The constraints of the one table that a world has: each row may refer to another one and hold a unique value.
///
/// A row's values are numbers: merged by row `note * 1000 + unique * 10 + reference`, merged by column one each. 0 is
/// NULL, a reference is a key plus one.
struct Constraints: Sendable {
  var hasReferences: Bool
  var hasUnique: Bool
  /// ON DELETE CASCADE; else a row that is referred to cannot be deleted.
  var cascades: Bool
  /// A row may refer to any other, so that circles are possible; else to those with lower keys.
  var hasCircles: Bool

  init(_ random: inout SplitMix64) {
    hasReferences = random.chance(75)
    hasUnique = !hasReferences || random.chance(60)
    cascades = random.chance(50)
    hasCircles = random.chance(30)
  }

  static let reference = 0
  static let unique = 1
  static let note = 2

  func parent(_ row: RowState<Int>?) -> Int? {
    guard hasReferences, let row, row.isAlive else { return nil }
    let value = row.registers.count == 1 ? (row.registers[0]?.value ?? 0) % 10 : row.registers[Self.reference]?.value
    return (value ?? 0) == 0 ? nil : (value ?? 0) - 1
  }

  func unique(_ row: RowState<Int>?) -> Int? {
    guard hasUnique, let row, row.isAlive else { return nil }
    let value =
      row.registers.count == 1 ? (row.registers[0]?.value ?? 0) / 10 % 100 : row.registers[Self.unique]?.value
    return (value ?? 0) == 0 ? nil : value
  }

  /// Values by register. `parents`: keys that may be referred to.
  func values(_ scenario: Scenario, parents: [Int], _ random: inout SplitMix64) -> [Int: Int] {
    let reference = hasReferences && !parents.isEmpty && random.chance(60) ? random.pick(parents) + 1 : 0
    let unique = hasUnique && random.chance(70) ? random.int(1...4) : 0
    let note = scenario.valuesAreFew ? random.int(0...2) : random.int(0...1_000_000)
    if scenario.policy.granularity == .row { return [0: note * 1000 + unique * 10 + reference] }
    return [Self.reference: reference, Self.unique: unique, Self.note: note]
  }

  /// The values without what a constraint could refuse.
  func harmless(_ values: [Int: Int]) -> [Int: Int] {
    guard values.count > 1 else { return values.mapValues { $0 / 1000 * 1000 } }
    return values.merging([Self.reference: 0, Self.unique: 0]) { $1 }
  }
}

extension Database {
  /// A row's parent is there, and nobody else has its unique value: what an office's readers rely on.
  func broken(_ constraints: Constraints) -> Violation? {
    var holders: [Int: Int] = [:]
    for (key, copy) in rows.enumerated() {
      if let parent = constraints.parent(copy?.state), !(rows[parent]?.state.isAlive ?? false) {
        return Violation(promise: .keys, detail: "key \(key) refers to \(parent), which is not there")
      }
      guard let value = constraints.unique(copy?.state) else { continue }
      if let other = holders[value] {
        return Violation(promise: .unique, detail: "keys \(other) and \(key) both have \(value)")
      }
      holders[value] = key
    }
    return nil
  }
}
