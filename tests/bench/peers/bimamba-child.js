/** Our engine in a process of Node of its own, asked over its channel: the other end is subjects.js. */

import { answerParent } from './answer-parent.js'
import { BimambaBench } from './bimamba-bench.js'

answerParent((options) => BimambaBench.start(options))
