// SPDX-License-Identifier: Apache-2.0

package reservation

// The sense keys and additional sense codes that are reported here.
const (
	keyHardwareError  = 0x04
	keyIllegalRequest = 0x05

	ascParametersChanged = 0x2a // of the unit attentions below

	ascqReservationsPreempted  = 0x03
	ascqReservationsReleased   = 0x04
	ascqRegistrationsPreempted = 0x05
)

// conflict is the Result of a command that ends in RESERVATION CONFLICT.
var conflict = Result{Conflict: true}

// fail is the Result of a command that ends with sense s.
func fail(s *Sense) Result { return Result{Sense: s} }

// invalidCDB is INVALID FIELD IN CDB.
func invalidCDB(field int) *Sense {
	return &Sense{Key: keyIllegalRequest, ASC: 0x24, ASCQ: 0x00, Field: field}
}

// invalidParameter is INVALID FIELD IN PARAMETER LIST.
func invalidParameter(field int) *Sense {
	return &Sense{Key: keyIllegalRequest, ASC: 0x26, ASCQ: 0x00, Field: field}
}

// listLengthError is PARAMETER LIST LENGTH ERROR.
func listLengthError() *Sense {
	return &Sense{Key: keyIllegalRequest, ASC: 0x1a, ASCQ: 0x00, Field: -1}
}

// invalidRelease is INVALID RELEASE OF PERSISTENT RESERVATION.
func invalidRelease() *Sense {
	return &Sense{Key: keyIllegalRequest, ASC: 0x26, ASCQ: 0x04, Field: -1}
}

// noResources is INSUFFICIENT REGISTRATION RESOURCES.
func noResources() *Sense {
	return &Sense{Key: keyIllegalRequest, ASC: 0x55, ASCQ: 0x04, Field: -1}
}

// internalFailure is INTERNAL TARGET FAILURE: the state could not be kept
// where APTPL needs it.
func internalFailure() *Sense {
	return &Sense{Key: keyHardwareError, ASC: 0x44, ASCQ: 0x00, Field: -1}
}
