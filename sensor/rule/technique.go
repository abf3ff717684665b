package rule

import "tourniquet.dev/tourniquet/internal/detection"

// Technique returns how a detection names a technique of the table, for detections that no rule made; false for one that
// is not in it.
func Technique(id string) (detection.Attack, bool) {
	entry, ok := attack[id]
	if !ok {
		return detection.Attack{}, false
	}
	return detection.Attack{TechniqueID: id, TacticID: entry.tactics[0], Version: AttackVersion}, true
}

// IsMain reports whether the process is the container's main program.
func (s Subject) IsMain() bool { return s.main(s.Process) }
